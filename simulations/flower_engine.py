"""The study on Flower's simulation engine: sites answer in Ray's workers, also on a cluster.

The coordinator's own loop runs in a `ServerApp` over Flower's Grid; a `ClientApp`'s turn is one
site's answer to one envelope. Ray's workers keep nothing of a site: it lies in the folder, which
every machine of a cluster must see under the same path.

`server.flower_channel` is not used here: it finds couriers by their enrolled keys and asks again
after 15 s, for a courier may die. Here nodes have no keys, every message says which site it is for,
a worker that dies ends the run, and a site that is asked twice would only train twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from common.errors import CohortiumError, ConfigError, InternalError, ServiceError
from common.ids import SiteId, parse_site_id
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.error_record import error_of, record_of

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

ADDRESS: Final = "RAY_ADDRESS"
"""Ray's own variable: a cluster that runs already. Without it Ray starts here, on loopback."""
POLL_S: Final = 0.02
TURNS_WAITING: Final = 16
"""Messages under way for each worker: Flower hands them out ten times a second."""
BYTES_WAITING: Final = 64 << 20
"""Envelopes under way; above it only one for each worker."""
OBJECT_STORE_BYTES: Final = 256 << 20
_SITE: Final = "site"
_ANSWER: Final = "answer"
_FAILURE: Final = "failure"
_PATH_MAX: Final = 40  # Ray's sockets lie below it, and a socket's path has 107 characters at most
_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_ALONE: Final = {
    "RAY_AUTH_MODE": "token",
    # Without it Ray takes 127.0.0.1 for a mistake and listens on every address of the machine.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class Answers(Protocol):
    """Sites that lie in a folder; it is sent to Ray's workers, so it can be pickled."""

    def answer(self, site_id: SiteId, envelope: bytes) -> bytes:
        """Return a site's sealed reply to a sealed request."""
        ...


def run_over_flower(
    loop: Callable[[SiteChannel], None],
    sites: Answers,
    site_ids: Sequence[SiteId],
    *,
    workers: int | None = None,
) -> None:
    """Run a coordinator's loop in Flower's engine; Ray is gone when it returns.

    Args:
        loop: called once, in the `ServerApp`'s thread, with the channel to the sites.
        sites: answer, each in one of Ray's workers.
        site_ids: of all sites.
        workers: processes on this machine, one for each core when not given; a cluster has as many
            as its cores.

    Raises:
        ConfigError: when Ray is not installed or the cluster of `RAY_ADDRESS` does not answer.
        ServiceError: when Flower, Ray or one of its workers fails.
        CohortiumError: what the loop or a site raised.
    """
    _need_ray()
    with _environment(_QUIET), _quiet_logs(), _own_ray(workers) as turns:
        from flwr.simulation import run_simulation

        server = _Server(loop, site_ids, turns)
        try:
            run_simulation(
                server_app=server.app(),
                client_app=_client_app(sites),
                num_supernodes=len(site_ids),
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
        except CohortiumError:
            raise
        except Exception as error:
            raise server.failure or _engine_failed(type(error).__name__) from None
        finally:
            server.stop()
    if server.failure is not None:
        raise server.failure
    if not server.is_finished:
        raise _engine_failed("an end before the study's")


class _Server:
    """The `ServerApp`: the coordinator's loop, in the thread that Flower gives it."""

    def __init__(
        self, loop: Callable[[SiteChannel], None], site_ids: Sequence[SiteId], turns: int
    ) -> None:
        self._loop = loop
        self._site_ids = site_ids
        self._turns = turns
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._began = False
        self.failure: BaseException | None = None
        self.is_finished = False

    def app(self) -> ServerApp:
        from flwr.serverapp import ServerApp

        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            self._began = True
            try:
                nodes = _wait_for_nodes(grid, len(self._site_ids), self._stopped)
                of_site = dict(zip(self._site_ids, nodes, strict=True))
                self._loop(_GridChannel(grid, of_site, self._turns, self._stopped))
                self.is_finished = True
            except _Stopped:
                pass
            except CohortiumError as error:
                self.failure = error
            except Exception as error:
                # Its traceback is ours: the loop runs in this process.
                self.failure = error
            finally:
                self._ended.set()

        return app

    def stop(self) -> None:
        """End the loop's wait for answers and wait until its thread has left our code."""
        self._stopped.set()
        if self._began:
            self._ended.wait(timeout=30)


class _GridChannel:
    """Carries envelopes over Flower's Grid, few at a time, so that not all lie in memory."""

    def __init__(
        self, grid: Grid, nodes: Mapping[SiteId, int], turns: int, stopped: threading.Event
    ) -> None:
        self._grid = grid
        self._nodes = nodes
        self._turns = turns
        self._stopped = stopped

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask all sites and yield their answers as they come.

        Every site answers, so the deadline is never met: simulated time is not the clock's.
        """
        waiting = deque(requests.items())
        asked: dict[str, tuple[SiteId, int]] = {}
        while waiting or asked:
            self._send(waiting, asked)
            for message in self._pull(asked):
                site_id, _ = asked.pop(str(message.metadata.reply_to_message_id))
                yield Arrived(site_id, _read(message))

    def _send(
        self,
        waiting: deque[tuple[SiteId, Callable[[], bytes]]],
        asked: dict[str, tuple[SiteId, int]],
    ) -> None:
        under_way = sum(size for _, size in asked.values())
        while waiting and len(asked) < (
            self._turns * TURNS_WAITING if under_way < BYTES_WAITING else self._turns
        ):
            site_id, make = waiting.popleft()
            envelope = make()
            message = _message(site_id, envelope, self._nodes[site_id])
            [message_id, *_] = [*self._grid.push_messages([message]), ""]
            if not message_id:
                raise _engine_failed("a message that was not taken")
            asked[str(message_id)] = (site_id, len(envelope))
            under_way += len(envelope)

    def _pull(self, asked: Mapping[str, object]) -> list[Message]:
        while True:
            if self._stopped.is_set():
                raise _Stopped
            found = list(self._grid.pull_messages(list(asked)))
            if found:
                return found
            time.sleep(POLL_S)


class _Stopped(Exception):
    """Somebody has ended the run; says nothing to anybody."""


def _message(site_id: SiteId, envelope: bytes, node_id: int) -> Message:
    from flwr.app import ConfigRecord, Message

    from common.flower_content import pack_envelope

    content = pack_envelope(envelope)
    content[_SITE] = ConfigRecord({_SITE: str(site_id)})
    return Message(content=content, dst_node_id=node_id, message_type="train")


def _read(message: Message) -> bytes:
    """Return the envelope of a reply; raises what its site raised."""
    from common.flower_content import unpack_envelope

    if message.has_error():
        # Flower's own words may repeat a worker's; its number says enough.
        raise _engine_failed(f"Flower's error {int(message.error.code)} in place of an answer")
    if _FAILURE in message.content:
        raise error_of(dict(message.content[_FAILURE]))
    envelope = unpack_envelope(message.content)
    if envelope is None:
        raise _engine_failed("an answer without an envelope")
    return envelope


def _client_app(sites: Answers) -> ClientApp:
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def turn(message: Message, context: Context) -> Message:
        return answer_turn(sites, message)

    return app


def answer_turn(sites: Answers, message: Message) -> Message:
    """Return one site's reply to one message; called in Ray's workers."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from common.flower_content import pack_envelope, unpack_envelope

    try:
        site_id = parse_site_id(str(message.content[_SITE][_SITE]))
        # An envelope that is none is refused by the site itself.
        content = pack_envelope(sites.answer(site_id, unpack_envelope(message.content) or b""))
    except CohortiumError as error:
        content = RecordDict({_FAILURE: ConfigRecord(record_of(error))})
    except Exception as error:
        # What another exception says may be text of a patient's row.
        content = RecordDict({_FAILURE: ConfigRecord(record_of(_bug(error)))})
    return Message(content=content, reply_to=message)


def _wait_for_nodes(grid: Grid, count: int, stopped: threading.Event) -> list[int]:
    """Return Flower's nodes, which are registered while the `ServerApp` starts."""
    while not stopped.is_set():
        nodes = sorted(int(node) for node in grid.get_node_ids())
        if len(nodes) >= count:
            return nodes[:count]
        time.sleep(POLL_S)
    raise _Stopped


@contextlib.contextmanager
def _own_ray(workers: int | None) -> Iterator[int]:
    """Start Ray on loopback, or join the cluster of `RAY_ADDRESS`; give the number of workers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    address = os.environ.get(ADDRESS, "")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        if not address:
            folder = tempfile.gettempdir()
            scratch = tempfile.TemporaryDirectory(
                prefix="ray-",
                dir=folder if len(folder) <= _PATH_MAX else "/tmp",  # noqa: S108 - a fresh one
                ignore_cleanup_errors=True,  # Ray's last process may still write its log
            )
            options = {
                "address": "local",
                "num_cpus": workers or os.cpu_count() or 1,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(scratch),
            }
            stack.enter_context(_environment(_ALONE))
            # Otherwise whoever may open a port of this machine could run code as we.
            stack.enter_context(_environment({"RAY_AUTH_TOKEN": secrets.token_hex(32)}))
        import ray

        _read_environment_again(is_alone=not address)
        stack.callback(ray.shutdown)
        try:
            ray.init(
                **options,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": _of_workers()},
            )
        except Exception as error:
            raise _no_ray(address, type(error).__name__) from None
        for number, handler in handlers.items():
            # Ray ends the process by itself on SIGTERM, past everything that we would close.
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(number, handler)
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))


def _read_environment_again(*, is_alone: bool) -> None:
    """Let Ray see our variables: it reads some when it is imported, which may have been before."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config

    ray_constants.ENABLE_RAY_CLUSTER = not is_alone
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def _of_workers() -> dict[str, str]:
    """Return the environment of Ray's workers: our modules, one thread, and no word to anybody."""
    return {**_QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables while the block lasts, and put all back: Flower itself changes some."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Flower's log of a run to itself: what went wrong we say in our words."""
    from flwr.supercore import telemetry

    # Read when it was first imported, which may have been before we said no.
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    logger = logging.getLogger("flwr")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


def _need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "Flower's simulation engine does not start",
            expected="Ray, which it runs on",
            arrived="no such package",
            todo="install cohortium[simulation-flower], or use --engine local",
        )


def _no_ray(address: str, seen: str) -> ConfigError:
    return ConfigError(
        "Ray does not start" if not address else "the Ray cluster cannot be joined",
        expected="a Ray that starts on this machine"
        if not address
        else f"a cluster at {ADDRESS} = {address} with this Ray and this Python",
        arrived=seen,
        todo="free memory and disk, or use --engine local"
        if not address
        else "check it with `ray status`, or unset the variable to run on this machine",
    )


def _engine_failed(seen: str) -> ServiceError:
    return ServiceError(
        "Flower's simulation engine did not finish the study",
        expected="an answer of every site from a worker process",
        arrived=seen,
        todo="look whether memory ran out, take fewer workers with --workers, or --engine local",
    )


def _bug(error: Exception) -> InternalError:
    return InternalError(
        "a site's code failed in a worker process",
        expected="an answer",
        arrived=type(error).__name__,
        todo="run it with --engine local --workers 1 to see where, and report it",
    )
