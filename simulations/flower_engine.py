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
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from common.errors import CohortiumError, ConfigError, ServiceError
from common.ids import SiteId, parse_site_id
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.ray_cluster import QUIET, environment, need_ray, own_ray
from simulations.site_worker import error_of_record, error_record

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

POLL_S: Final = 0.02
TURNS_WAITING: Final = 16
"""Messages under way for each worker: Flower hands them out ten times a second."""
BYTES_WAITING: Final = 64 << 20
"""Envelopes under way; above it only one for each worker."""
_SITE: Final = "site"
_FAILURE: Final = "failure"


class Answers(Protocol):
    """Sites that lie in a folder; it is sent to Ray's workers, so it can be pickled."""

    @property
    def folder(self) -> Path:
        """Where they lie, on every machine."""
        ...

    def answer(self, site_id: SiteId, envelope: bytes) -> bytes:
        """Return a site's sealed reply to a sealed request."""
        ...

    def close(self) -> None:
        """Close what is open in this process: another worker may have the site's next turn."""
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
    need_ray()
    with environment(QUIET), _quiet_logs(), own_ray(workers) as turns:
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
            message = message_to(site_id, envelope, self._nodes[site_id])
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


def message_to(site_id: SiteId, envelope: bytes, node_id: int) -> Message:
    """Return the message that asks one site; any node can work it."""
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
        record = message.content[_FAILURE]
        raise error_of_record({key: str(value) for key, value in record.items()})
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
        envelope = unpack_envelope(message.content) or b""
        content = pack_envelope(_in_folder(sites).answer(site_id, envelope))
    except Exception as error:
        record: dict[str, Any] = dict(error_record(error))
        content = RecordDict({_FAILURE: ConfigRecord(record)})
    finally:
        sites.close()
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


def _in_folder(sites: Answers) -> Answers:
    if sites.folder.is_dir():
        return sites
    raise ConfigError(
        "a machine of the Ray cluster cannot work a site",
        expected="the run's folder, under the same path on every machine of the cluster",
        arrived="no such folder there",
        todo="name a folder that all machines share, or unset RAY_ADDRESS to run on this one",
    )


def _engine_failed(seen: str) -> ServiceError:
    return ServiceError(
        "Flower's simulation engine did not finish the study",
        expected="an answer of every site from a worker process",
        arrived=seen,
        todo="look whether memory ran out, take fewer workers with --workers, or --engine local",
    )
