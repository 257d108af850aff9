"""The resident agent: data and keys, one Unix socket, no network."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NoReturn

import grpc

from common import limits
from common.clock import SystemClock
from common.errors import AgentUnavailable, ProtocolError
from common.protocol import agent_pb2, agent_pb2_grpc
from site_client.config import SitePaths, read_site_config
from site_client.open_monitoring import open_mailbox
from site_client.open_site import open_site
from site_client.report_port import NothingToReport, ReportPort
from site_client.site_features import feature_use
from site_client.tasks import SiteTasks

STOP_WAIT_S: Final = 5.0
OUTBOX_REPORTS_MAX: Final = 32  # of 4 MiB each: below what one message may hold
_OUTCOME_CHARACTERS_MAX: Final = 200
_WORKERS: Final = 8

logger = logging.getLogger("cohortium.agent")


class AgentService(agent_pb2_grpc.AgentServicer):
    """The agent's calls over one `SiteTasks` and what it reports of its own accord."""

    def __init__(self, tasks: SiteTasks, site_id: str, reports: ReportPort | None = None) -> None:
        self._tasks = tasks
        self._site_id = site_id
        self._reports = reports or NothingToReport()

    def Carry(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer one request envelope."""
        try:
            released = self._tasks.handle(bytes(request.envelope))
        except ProtocolError:
            logger.warning("R1: an envelope that cannot be read")
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "R1")
        except Exception as error:
            _fail(error, context)
        return agent_pb2.CarryReply(envelope=released.envelope)

    def Outbox(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Return the sealed reports that should be at the relay now."""
        try:
            envelopes = self._reports.outbox()[:OUTBOX_REPORTS_MAX]
        except Exception as error:
            _fail(error, context)
        return agent_pb2.OutboxReply(envelopes=envelopes)

    def Deliver(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Take one notice of the relay."""
        try:
            outcome = self._reports.deliver(bytes(request.notice), bytes(request.body))
        except Exception as error:
            _fail(error, context)
        return agent_pb2.DeliverReply(outcome=outcome[:_OUTCOME_CHARACTERS_MAX])

    def Health(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Say that the agent is there."""
        return agent_pb2.HealthReply(
            site_id=self._site_id, state="ready", software_version=_software_version()
        )


def _fail(error: Exception, context: Any) -> NoReturn:
    # No text of an exception leaves: gRPC would send it.
    logger.error("R99: a fault of type %s", type(error).__name__)
    context.abort(grpc.StatusCode.INTERNAL, "R99")
    raise error  # abort has raised already


def run_agent(paths: SitePaths) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        AgentUnavailable: when another agent runs on this folder.
        ConfigError, KeyFileError, EnrolmentError, LedgerError: when the site is not whole.
    """
    config = read_site_config(paths)
    paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_agent(paths):
        site = open_site(paths, clock=SystemClock())
        site.records.log.verify()
        site.records.ledger.verify()
        use = feature_use(config, paths, site.records, SystemClock())
        if use is not None:
            use.drop_older()
        tasks = SiteTasks(
            config,
            folder=paths.home,
            keys=site.keys,
            records=site.records,
            clock=SystemClock(),
            engine=_engine(config.limits.threads),
        )
        reports = open_mailbox(config, site, SystemClock())
        _serve(paths, AgentService(tasks, config.site.id, reports))


def _engine(threads: int) -> Any:
    # Imported here: torch and Opacus take seconds, and a wrong site.toml should be told at once.
    import torch

    from site_client.training.dp_sgd_engine import DpSgdEngine

    torch.set_num_threads(threads)
    return DpSgdEngine()


def _serve(paths: SitePaths, service: AgentService) -> None:
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=_WORKERS),
        # A courier that was taken over must not queue messages of 256 MiB without end.
        maximum_concurrent_rpcs=_WORKERS,
        options=[
            ("grpc.max_receive_message_length", limits.ENVELOPE_BYTES_MAX + (1 << 16)),
            ("grpc.max_send_message_length", limits.ENVELOPE_BYTES_MAX + (1 << 16)),
        ],
    )
    register: Any = agent_pb2_grpc.add_AgentServicer_to_server  # generated without types
    register(service, server)
    # A socket left by a killed agent: ours to remove, because we hold the lock.
    paths.socket.unlink(missing_ok=True)
    _check_socket_path(paths)
    server.add_insecure_port(f"unix:{paths.socket}")
    server.start()
    os.chmod(paths.socket, 0o660)
    logger.info("the agent is ready")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    server.stop(STOP_WAIT_S).wait()
    paths.socket.unlink(missing_ok=True)


def _check_socket_path(paths: SitePaths) -> None:
    # sockaddr_un holds 108 bytes; a longer path fails inside gRPC with no word about why.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(paths.socket))
        except OSError as error:
            raise AgentUnavailable(
                "the agent's socket cannot be made",
                expected="a path of at most 107 bytes in a writable folder",
                arrived=f"{paths.socket}: {error.strerror or error}",
                todo="use a shorter folder for --home",
            ) from None
    paths.socket.unlink(missing_ok=True)


@contextmanager
def _only_agent(paths: SitePaths) -> Iterator[None]:
    with paths.agent_lock.open("a") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentUnavailable(
                "another agent runs on this folder",
                expected="one agent for each site",
                arrived="a second one",
                todo="stop the other agent first",
            ) from None
        yield


def _software_version() -> str:
    try:
        return version("cohortium")
    except PackageNotFoundError:
        return "unknown"
