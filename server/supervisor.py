"""`up`: keep SuperLink, SuperExec and relay running, couriers registered, studies going.

Where there is a relay, the board's decisions are acted on as they come.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.child_process import ending_with_us, signal_session, stop_children
from common.crypto.node_key import node_public_pem
from common.errors import CohortiumError, ServiceError
from common.protocol.round_states import StudyState
from server.books import Books
from server.config import HOME_VARIABLE, CoordinatorPaths, ServerConfig
from server.decision_watch import DecisionWatch
from server.flower_control import FlowerControl, RunStatus, loopback_without_proxy
from server.run_lock import is_run_alive
from server.study_register import Study

TICK_S: Final = 0.5
SYNC_EVERY_S: Final = 2.0
DECISIONS_EVERY_S: Final = 5.0
RESTARTS_MAX: Final = 20
BACK_OFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_AFTER_S: Final = 30.0
STOP_WAIT_S: Final = 10.0
SERVERAPP_START_S: Final = 30.0


@dataclass
class _Service:
    """One child process and when it may be started again."""

    name: str
    command: Sequence[str]
    child: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = field(default=0.0)


class Supervisor:
    """The services of one coordinator.

    Args:
        paths, config, books: of the coordinator.
        say: receives a line of plain text for each thing that happens.
    """

    def __init__(
        self,
        paths: CoordinatorPaths,
        config: ServerConfig,
        books: Books,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._config = config
        self._books = books
        self._say = say
        self._stop = threading.Event()
        self._control: FlowerControl | None = None
        self._runs_started: dict[str, float] = {}
        self._said: set[str] = set()
        self._services = [
            _Service(
                "superlink",
                [sys.executable, "-P", "-m", "server.superlink_main", str(paths.home)],
            ),
            _Service(
                "superexec",
                [
                    find_program("flower-superexec"),
                    "--runtime-api-address",
                    f"127.0.0.1:{config.operator_port}",
                    "--root-certificates",
                    str(paths.ca_certificate),
                    "--superexec-auth-secret-file",
                    str(paths.superexec_secret),
                ],
            ),
        ]
        self._decisions: DecisionWatch | None = None
        if config.relay is not None:
            self._decisions = DecisionWatch(paths, config)
            command = [sys.executable, "-P", "-m", "server.relay_main", str(paths.home)]
            self._services.append(_Service("relay", command))

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop every child."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        next_sync = next_look = 0.0
        try:
            while not self._stop.wait(TICK_S):
                for service in self._services:
                    self._keep(service)
                if time.monotonic() >= next_sync:
                    self._sync()
                    next_sync = time.monotonic() + SYNC_EVERY_S
                if time.monotonic() >= next_look:
                    self._act_on_decisions()
                    next_look = time.monotonic() + DECISIONS_EVERY_S
        finally:
            self._stop_children()

    def _keep(self, service: _Service) -> None:
        now = time.monotonic()
        if service.child is not None:
            code = service.child.poll()
            if code is None:
                return
            signal_session(service.child, signal.SIGKILL)
            if now - service.started_at > STABLE_AFTER_S:
                service.failures = 0
            wait_s = BACK_OFF_S[min(service.failures, len(BACK_OFF_S) - 1)]
            service.failures += 1
            self._say(f"{service.name} ended (exit {code}); starting it again in {wait_s:g} s.")
            service.child, service.start_at = None, now + wait_s
        if now < service.start_at:
            return
        with (self._paths.logs / f"{service.name}.log").open("ab") as log:
            service.child = subprocess.Popen(  # noqa: S603 - fixed commands
                ending_with_us(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(service_environment(self._paths)),
                cwd=self._paths.home,
                start_new_session=True,
            )
        service.started_at = now
        self._say(f"{service.name} started.")

    def _sync(self) -> None:
        try:
            if self._control is None:
                self._control = FlowerControl(self._paths, self._config)
            self._sync_nodes(self._control)
            for study in self._books.register.all_studies():
                if study.state is StudyState.RUNNING:
                    self._keep_running(self._control, study)
        except CohortiumError:
            # The SuperLink is starting or was just killed: the next tick tries again.
            return
        except Exception as error:
            # `up` is what brings everything else back: a fault of ours must not end it.
            self._say(f"a fault of type {type(error).__name__} while looking after studies")

    def _act_on_decisions(self) -> None:
        if self._decisions is None:
            return
        try:
            for item in self._decisions.look():
                self._say(
                    f"the board's decision {item.number} of {item.study_id or 'no study'}, "
                    f"{item.action or 'unreadable'}: {item.outcome}; {item.detail}"
                )
            if self._decisions.obstacle:
                self._say_once(f"the board's decisions wait: {self._decisions.obstacle}")
        except CohortiumError as error:
            # Nothing is lost: what was not logged is looked at again.
            self._say_once(f"the board's decisions wait: {error.refused} ({error.arrived})")
        except Exception as error:
            self._say_once(f"a fault of type {type(error).__name__} while acting on decisions")

    def _sync_nodes(self, control: FlowerControl) -> None:
        """Let every site's courier log in; whether it is suspended is asked at each request."""
        present = {node.public_key_pem.strip() for node in control.nodes()}
        for site in self._books.sites.all_sites():
            if node_public_pem(site.node_public_key).strip() in present:
                continue
            try:
                control.register_node(site.site_id, site.node_public_key)
            except CohortiumError as error:
                # One site's trouble must not keep the others or a study from going on.
                self._say_once(f"site {site.site_id} cannot be registered: {error.arrived}")
            else:
                self._say_once(f"site {site.site_id} may connect.")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _keep_running(self, control: FlowerControl, study: Study) -> None:
        """Start a new Flower run when a running study's run has died."""
        now = time.monotonic()
        if is_run_alive(self._paths, study.study_id):
            self._runs_started[study.study_id] = 0.0
            return
        started_at = self._runs_started.setdefault(study.study_id, now)
        status = (
            control.run_status(study.flower_run_id) if study.flower_run_id else RunStatus.UNKNOWN
        )
        is_dead = (
            status in (RunStatus.FINISHED, RunStatus.UNKNOWN)
            or (
                # Flower thinks that it runs, yet no process holds the study's lock.
                status is RunStatus.RUNNING and now - started_at > SERVERAPP_START_S
            )
            or (status is RunStatus.RUNNING and started_at == 0.0)
        )
        if not is_dead:
            return
        # The ServerApp may have ended well between our two questions.
        if self._books.register.find(study.study_id).state is not StudyState.RUNNING:
            return
        if study.restarts >= RESTARTS_MAX:
            self._books.register.change_state(
                study.study_id, StudyState.FAILED, reason="its run ended too often"
            )
            return
        if study.flower_run_id:
            control.stop_run(study.flower_run_id)
        run_id = control.start_run(study.study_id)
        self._books.register.start_run(study.study_id, run_id, restarts=study.restarts + 1)
        self._runs_started[study.study_id] = now
        self._say(f"study {study.study_id} goes on in a new run from its last complete round.")

    def _stop_children(self) -> None:
        children = [service.child for service in self._services if service.child is not None]
        stop_children(children, wait_s=STOP_WAIT_S)
        if self._control is not None:
            self._control.close()


def find_program(name: str) -> str:
    """Return the path of a program that our installation brought; raises `ServiceError`."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServiceError(
            f"{name} is not installed",
            expected=f"{name} beside {sys.executable} or on the PATH",
            arrived="no such program",
            todo="install the server extra again, with the constraints file",
        )
    return found


def service_environment(paths: CoordinatorPaths) -> Mapping[str, str]:
    """Return the environment of our services: no telemetry, no update check, no installation."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        **loopback_without_proxy(os.environ),
        "PATH": path,
        HOME_VARIABLE: str(paths.home.resolve()),
        "FLWR_HOME": str(paths.flower_home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def check_free_port(host: str, port: int) -> None:
    """Refuse to start when another program listens on a port we need; raises `ServiceError`."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} cannot be used",
                expected=f"a free TCP port on {host}",
                arrived=error.strerror or type(error).__name__,
                todo="stop the other program (perhaps another `up`), or change server.toml",
            ) from None
