"""The relay's gRPC server: mutual TLS, bounds on connections, a graceful stop."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health

from common import limits
from common.clock import Clock, SystemClock
from common.crypto.key_files import read_secret
from common.errors import CohortiumError, ConfigError, ServiceError
from server.config import CoordinatorPaths, RelayConfig, read_config
from server.relay_calls import MonitoringCalls
from server.relay_expiry import expire_notices
from server.relay_quotas import RelayQuotas
from server.relay_rosters import RosterWatch
from server.relay_store import RelayStore
from server.storage.database import Database

STOP_WAIT_S: Final = 10.0
EXPIRE_EVERY_S: Final = 3600.0
CALLS_MAX: Final = 4096
_HANDSHAKE_MS: Final = 10_000  # TLS and the first frame of HTTP/2; two round trips
_KEEPALIVE_MS: Final = 60_000
_KEEPALIVE_WAIT_MS: Final = 20_000
_PING_MS_MIN: Final = 20_000  # a caller that pings more often is sent away
_IDLE_MS: Final = 600_000
_AGE_MS: Final = 6 * 3600_000  # a revoked member's connection does not live for ever
_AGE_GRACE_MS: Final = 900_000
_STREAMS_MAX: Final = 16  # of one connection
_METADATA_BYTES_MAX: Final = 8 << 10
_PROBES_MAX: Final = 64  # of the health port, at once
_PROBE_BYTES_MAX: Final = 1 << 10
_FILES_KEPT: Final = 256  # open files for the database and logs, beside connections

logger = logging.getLogger("cohortium.relay")


def serve(home: Path) -> None:
    """Run the relay of one coordinator until SIGTERM or SIGINT.

    Raises:
        ConfigError: without `[relay]` in server.toml.
        ServiceError: when another relay runs here, or the port cannot be opened.
        KeyFileError: without the server's TLS key. No other key is read.
    """
    paths = CoordinatorPaths(home)
    config = read_config(paths)
    if config.relay is None:
        raise ConfigError(
            "this coordinator has no relay",
            expected=f"[relay] with a port in {paths.config}",
            arrived="none",
            todo="add it, see docs/operating-a-coordinator.md",
        )
    with _only_relay(paths):
        store = RelayStore(Database.of(paths, config), SystemClock(), RelayQuotas(config.relay))
        asyncio.run(_serve(paths, config.listen_host, config.relay, store))


async def _serve(
    paths: CoordinatorPaths, host: str, config: RelayConfig, store: RelayStore
) -> None:
    clock = SystemClock()
    rosters = RosterWatch(store, clock)
    checks = health.HealthServicer()
    calls = MonitoringCalls(store, rosters, clock, config, checks=checks)
    server = grpc.aio.server(options=_options(config), maximum_concurrent_rpcs=CALLS_MAX)
    server.add_generic_rpc_handlers(calls.handlers())
    address = f"{f'[{host}]' if ':' in host else host}:{config.port}"
    _open_port(server, address, _credentials(paths))
    await server.start()
    probed = await _start_health(config, checks)
    logger.info("the relay is ready on %s", address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    expiry = asyncio.create_task(_expire(store, rosters, clock, config))
    await stop.wait()
    expiry.cancel()
    await checks.enter_graceful_shutdown()
    # New calls are refused at once; those that are being written are answered.
    await server.stop(STOP_WAIT_S)
    if probed is not None:
        await probed.stop(0)
    await calls.close()
    logger.info("the relay has stopped")


async def _start_health(config: RelayConfig, checks: Any) -> Any:
    """Answer health checks on loopback, where a probe has no certificate; nothing else there."""
    if config.health_port is None:
        return None
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _PROBE_BYTES_MAX)]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_PROBES_MAX)
    register: Any = health_pb2_grpc.add_HealthServicer_to_server  # generated without types
    register(checks, server)
    _open_port(server, f"127.0.0.1:{config.health_port}", None)
    await server.start()
    return server


async def _expire(
    store: RelayStore, rosters: RosterWatch, clock: Clock, config: RelayConfig
) -> None:
    """Delete, now and each hour, the notices that need not be kept."""
    while True:
        try:
            newest = (await rosters.current()).newest
            count = await asyncio.to_thread(
                expire_notices,
                store,
                newest,
                receipt_days=config.receipt_days,
                now_s=clock.now_s(),
            )
            if count:
                logger.info("%d notices were not needed any more", count)
        except CohortiumError as error:
            # Without a roster, or with a store at fault: the next hour tries again.
            logger.warning("notices are not looked through: %s", error.refused)
        await asyncio.sleep(EXPIRE_EVERY_S)


def _options(config: RelayConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.NOTICE_BYTES_MAX + (1 << 16)),
        ("grpc.max_send_message_length", limits.NOTICE_BYTES_MAX + (1 << 16)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_allowed_incoming_connections", _connections_max(config)),
        ("grpc.max_concurrent_streams", _STREAMS_MAX),
        ("grpc.max_metadata_size", _METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES_MAX),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_WAIT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS_MIN),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.max_connection_age_ms", _AGE_MS),
        ("grpc.max_connection_age_grace_ms", _AGE_GRACE_MS),
        ("grpc.so_reuseport", 0),
        # Only what is not compressed: a small message must not unpack to gigabytes.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _connections_max(config: RelayConfig) -> int:
    """Return how many connections fit below this process's limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.connections_max + _FILES_KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(1, wanted - _FILES_KEPT)


def _credentials(paths: CoordinatorPaths) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(read_secret(paths.server_key), paths.server_certificate.read_bytes())],
        root_certificates=paths.ca_certificate.read_bytes(),
        require_client_auth=True,
    )


def _open_port(server: Any, address: str, credentials: grpc.ServerCredentials | None) -> None:
    try:
        opened = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        opened = 0
    if not opened:
        raise ServiceError(
            "the relay's port cannot be opened",
            expected=f"{address} free and ours to use",
            arrived="another program's, or none of ours",
            todo="end what holds the port, or correct listen_host and [relay] in server.toml",
        )


@contextmanager
def _only_relay(paths: CoordinatorPaths) -> Iterator[None]:
    with paths.relay_lock.open("a") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                "another relay runs on this folder",
                expected="one relay for each coordinator",
                arrived="a second one",
                todo="stop the other relay first; `up` starts one by itself",
            ) from None
        yield
