"""A whole federation as real processes on loopback, set up by the commands that people type.

The demo, the end-to-end tests and the benchmark of a round all use it, so that they exercise what
a consortium runs: `cohortium-coordinator` and `cohortium-site`, TLS, node authentication, files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ServiceError
from simulations.processes import ProcessGroup

COMMAND_WAIT_S = 120.0


@dataclass(frozen=True)
class DemoSite:
    """One hospital of a deployment.

    Args:
        site_id: its id.
        organisation: its name.
        declared_cohort_size: public number of patients.
        source: the `[source]` part of its site.toml, as TOML text.
        limits: the `[limits]` part of its site.toml, as TOML text.
    """

    site_id: str
    organisation: str
    declared_cohort_size: int
    source: str
    limits: str


def free_port() -> int:
    """Return a TCP port of loopback that is free at this moment, and so is the one after it."""
    while True:
        with socket.socket() as probe, socket.socket() as after:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                after.bind(("127.0.0.1", port + 1))
                return port


class Deployment:
    """One coordinator and its sites in one folder.

    Args:
        folder: where everything is written; created.
        sites: the hospitals.
        say: receives one line of plain text for each step.
    """

    def __init__(
        self,
        folder: Path,
        sites: Sequence[DemoSite],
        *,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.sites = tuple(sites)
        self.say = say
        self.coordinator_home = folder / "coordinator"
        self.processes = ProcessGroup(folder / "logs")
        self.port = free_port()
        self.relay_port = free_port()
        self.fingerprint = ""

    def site_home(self, site_id: str) -> Path:
        """Return the folder of one site."""
        return self.folder / "sites" / site_id

    def request_of(self, site_id: str) -> Path:
        """Return the enrolment request of one site, which holds its public keys."""
        return self.folder / "exchange" / f"{site_id}.request.json"

    def coordinator(self, *words: str) -> str:
        """Run `cohortium-coordinator` with these words and return what it printed."""
        return self.command("cohortium-coordinator", "--home", str(self.coordinator_home), *words)

    def site(self, site_id: str, *words: str) -> str:
        """Run `cohortium-site` for one site with these words and return what it printed."""
        return self.command("cohortium-site", "--home", str(self.site_home(site_id)), *words)

    def coordinator_json(self, *words: str) -> Any:
        """Run `cohortium-coordinator … --json` and return the parsed answer."""
        return json.loads(self.coordinator(*words, "--json"))

    def site_json(self, site_id: str, *words: str) -> Any:
        """Run `cohortium-site … --json` for one site and return the parsed answer."""
        return json.loads(self.site(site_id, *words, "--json"))

    def found(self, consortium: str) -> None:
        """Make the consortium: authority, keys and store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.say("The coordinator makes its authority, its keys and its store.")
        answer = self.coordinator_json(
            "init",
            "--name",
            consortium,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--relay-port",
            str(self.relay_port),
        )
        self.fingerprint = str(answer["fingerprint"])

    def enrol(self, site: DemoSite) -> None:
        """Enrol one site: keys at the site, one request out, one signed file back."""
        exchange = self.folder / "exchange"
        exchange.mkdir(exist_ok=True)
        request = self.request_of(site.site_id)
        answer = exchange / f"{site.site_id}.enrolment.json"
        home = self.site_home(site.site_id)
        home.parent.mkdir(parents=True, exist_ok=True)
        asked = self.site_json(
            site.site_id,
            "enroll",
            "--id",
            site.site_id,
            "--organisation",
            site.organisation,
            "--contact",
            "it@example.invalid",
            "--out",
            str(request),
        )
        # Two people would read it to each other on the telephone.
        self.coordinator(
            "admit",
            str(request),
            "--fingerprint",
            str(asked["fingerprint"]),
            "--cohort-size-max",
            str(site.declared_cohort_size),
            "--out",
            str(answer),
        )
        self.site(
            site.site_id,
            "join",
            str(answer),
            "--fingerprint",
            self.fingerprint,
            "--relay",
            f"127.0.0.1:{self.relay_port}",
        )
        (home / "site.toml").write_text(
            f'[site]\nid = "{site.site_id}"\n'
            f"declared_cohort_size = {site.declared_cohort_size}\n\n"
            f"{site.limits}\n{site.source}\n",
            encoding="utf-8",
        )

    def approve(self, site_id: str, plan: Path, *, until: str = "2099-12-31") -> None:
        """Let the site's data steward approve one exact plan."""
        self.site(site_id, "approve", str(plan), "--as", "Data Steward", "--until", until)

    def start_coordinator(self) -> None:
        """Start `up` and wait until the SuperLink answers."""
        self.processes.start(
            "coordinator",
            [
                script_path("cohortium-coordinator"),
                "--home",
                str(self.coordinator_home),
                "up",
            ],
            environment=self.environment,
        )

    def start_site(self, site_id: str) -> None:
        """Start the site's agent and courier together."""
        self.processes.start(
            f"site-{site_id}",
            [script_path("cohortium-site"), "--home", str(self.site_home(site_id)), "run"],
            environment=self.environment,
        )

    def wait_for(
        self, question: Callable[[], Any], *, seconds: float, what: str, every_s: float = 0.5
    ) -> Any:
        """Ask until the answer is true and return it; raises `ServiceError` after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = question()
            if answer:
                return answer
            time.sleep(every_s)
        raise ServiceError(
            f"{what} did not happen",
            expected=f"within {seconds:.0f} s",
            arrived="nothing",
            todo=f"read the logs in {self.processes.log_folder}",
        )

    def stop(self) -> None:
        """Stop every process."""
        self.processes.stop_all()

    @property
    def environment(self) -> Mapping[str, str]:
        """Of every process of the federation."""
        return _environment()

    def command(self, script: str, *words: str) -> str:
        """Run one of our programs and return what it printed; raises `ServiceError`."""
        finished = subprocess.run(  # noqa: S603 - our own console scripts
            [script_path(script), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_WAIT_S,
            check=False,
            env=self.environment,
        )
        if finished.returncode != 0:
            raise ServiceError(
                f"`{script} {' '.join(words[2:])}` failed",
                expected="exit code 0",
                arrived=f"exit code {finished.returncode}: {finished.stderr.strip()[-2000:]}",
                todo="read the message above",
            )
        return finished.stdout


def script_path(name: str) -> str:
    """Return where one of our programs is; raises `ServiceError`."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServiceError(
            f"{name} is not installed",
            expected=f"{name} beside {sys.executable}",
            arrived="no such program",
            todo="install the project with `make install`",
        )
    return found


def _environment() -> Mapping[str, str]:
    # One thread a process: a federation on one machine has more processes than cores.
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
