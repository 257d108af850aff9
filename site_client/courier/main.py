"""The courier's process: log in, carry, come back after every break."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from common.crypto.node_key import read_node_key
from common.errors import ConfigError, TransportError

if TYPE_CHECKING:
    from site_client.courier.report_exchange import RelayAccess

BACK_OFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
STOP_WAIT_S: Final = 5.0

logger = logging.getLogger("cohortium.courier")


@dataclass(frozen=True)
class CourierConfig:
    """All that the courier knows.

    Args:
        address: the coordinator's host:port.
        ca_file: the authority, and the hospital's own where it inspects TLS.
        node_key: EC private key, OpenSSH.
        socket: the agent's.
        proxy: URL of the hospital's HTTP proxy, or empty.
        relay: `host:port` of the relay of monitoring reports, or empty; its files are beside the
            node key.
        relay_poll_s: how often it is asked for notices while nothing happens.
    """

    address: str
    ca_file: Path
    node_key: Path
    socket: Path
    proxy: str
    relay: str = ""
    relay_poll_s: float = 30.0


def read_courier_config(folder: Path) -> CourierConfig:
    """Read `courier.json` beside the node key; raises `ConfigError`."""
    path = folder / "courier.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return CourierConfig(
            address=str(record["address"]),
            ca_file=folder / "ca.pem",
            node_key=folder / "node.key",
            socket=(folder / str(record["socket"])).resolve(),
            proxy=str(record["proxy"]),
            relay=str(record.get("relay", "")),
            relay_poll_s=max(0.1, float(record.get("relay_poll_s", 30.0))),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            "the courier is not configured",
            expected=f"the file {path} that `cohortium-site join` writes",
            arrived="none, or another",
            todo="run `cohortium-site join` again",
        ) from None


def run_courier(config: CourierConfig) -> None:
    """Carry until SIGTERM or SIGINT; a lost connection is tried again with back-off.

    Raises:
        TransportError: when the authority's file cannot be used.
    """
    prepare_environment(config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    exchange = start_exchange(config, stop)
    failures = 0
    while not stop.is_set():
        started_at = time.monotonic()
        try:
            _connect_and_carry(config, stop)
        except TransportError as error:
            logger.warning("%s; trying again", error.refused)
        except Exception as error:
            logger.warning("the connection broke: %s", type(error).__name__)
        failures = 0 if time.monotonic() - started_at > BACK_OFF_S[-1] else failures + 1
        stop.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
    if exchange is not None:
        exchange.join(STOP_WAIT_S)


def start_exchange(config: CourierConfig, stop: threading.Event) -> threading.Thread | None:
    """Carry monitoring reports and notices too, apart from Flower: they go on when studies end."""
    if not config.relay:
        return None
    from site_client.courier.agent_client import AgentClient
    from site_client.courier.report_exchange import ReportExchange

    exchange = ReportExchange(
        relay_access(config), AgentClient(config.socket), folder=config.node_key.parent
    )
    thread = threading.Thread(
        target=exchange.run,
        kwargs={"stop": stop, "poll_s": config.relay_poll_s},
        name="reports",
        daemon=True,
    )
    thread.start()
    return thread


def relay_access(config: CourierConfig) -> RelayAccess:
    """Return how a courier reaches the relay."""
    from site_client.courier.report_exchange import RelayAccess

    folder = config.node_key.parent
    return RelayAccess(
        address=config.relay,
        ca_file=folder / "relay-ca.pem",
        certificate=folder / "site.crt",
        tls_key=folder / "tls.key",
        proxy=config.proxy,
    )


def prepare_environment(config: CourierConfig) -> None:
    """Silence Flower's calls home and set proxy and socket, before Flower is imported."""
    os.environ.update(
        {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "COHORTIUM_AGENT_SOCKET": str(config.socket),
        }
    )
    if config.proxy:
        os.environ["HTTPS_PROXY"] = config.proxy
    try:
        ssl.create_default_context(cafile=str(config.ca_file))
    except (OSError, ssl.SSLError):
        raise TransportError(
            "the certificate authority's file cannot be used",
            expected=f"PEM certificates in {config.ca_file}",
            arrived="none",
            todo="run `cohortium-site join` again",
        ) from None


def _connect_and_carry(config: CourierConfig, stop: threading.Event) -> None:
    from flwr.supernode import fleet_http_connection

    from site_client.courier.loop import CourierLoop

    # Flower's own answer to a refused login is to end the process, by a timer that outlives the
    # exception (exit 305). A courier tries again instead.
    setattr(fleet_http_connection, "flwr_exit", _refuse_login)  # noqa: B010 - not exported

    key = read_node_key(config.node_key)
    node_file = config.node_key.with_name("node-id")
    _leave_before(config, key, node_file)
    with fleet_http_connection.http_request_response(
        config.address,
        False,
        root_certificates=config.ca_file.read_bytes(),
        authentication_keys=(key, key.public_key()),
        max_retries=2,
    ) as connection:
        node_file.write_text(str(connection[0]), encoding="ascii")
        logger.info("connected to %s", config.address)
        CourierLoop(tuple(connection)).run(stop.is_set)
        logger.info("leaving")


def _refuse_login(*_: object, **__: object) -> NoReturn:
    raise TransportError(
        "the coordinator did not let us in",
        expected="a running coordinator that has admitted this site",
        arrived="a refused or failed login",
        todo="check that the coordinator is up and that this site is not suspended",
    )


def _leave_before(config: CourierConfig, key: Any, node_file: Path) -> None:
    """Log a killed predecessor out: Flower would refuse us for up to a minute as a second login."""
    import httpx
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    try:
        node_id = int(node_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    with FleetHttpClient.from_server_address(
        config.address,
        False,
        config.ca_file.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    ) as client:
        try:
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
        except (httpx.HTTPError, RuntimeError):
            return
