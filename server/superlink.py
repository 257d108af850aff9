"""Flower's SuperLink behind path control: two listeners, one process, TLS on both.

The public listener is all that a hospital reaches: Flower's Fleet API (couriers of active sites
only, each authenticated by Flower with its enrolled key) and `/health`. The operator listener is on
loopback: the Control API for whoever holds the operator token, and the Runtime API for the
SuperExec (its own secret and task tokens). In open-source Flower the Control API asks nobody who he
is, so it must never share a port with sites (architecture decision 3c).
"""

from __future__ import annotations

import asyncio
import hmac
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import uvicorn

from common import limits
from common.clock import SystemClock
from common.errors import ServiceError
from server.config import CoordinatorPaths, ServerConfig, read_config
from server.courier_admission import CourierAdmission
from server.public_listener import (
    PublicListener,
    PublicServer,
    connections_max,
    quieten_logs,
)
from server.site_directory import SiteDirectory
from server.storage.database import Database

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPERATOR_TOKEN_HEADER: Final = b"x-cohortium-operator"
COURIER_KEY_HEADER: Final = b"flwr-public-key"
_PUBLIC_PREFIXES: Final = ("/v1/fleet/",)
_RUNTIME_PREFIXES: Final = ("/v1/runtime/",)
_CONTROL_PREFIX: Final = "/v1/control/"
# Sites are enrolled by `admit`, never by themselves.
_CLOSED_PATHS: Final = ("/v1/fleet/register-node", "/v1/fleet/unregister-node")
_PUSH_MESSAGES_PATH: Final = "/v1/fleet/push-messages"
_BODY_BYTES_MAX: Final = limits.ENVELOPE_BYTES_MAX + (1 << 20)


class PublicPathControl:
    """ASGI middleware of the public listener: the Fleet API and health, 404 for all else.

    Args:
        admission: says whose courier may pass; Flower then checks that it holds the key it names.
    """

    def __init__(self, app: App, *, admission: CourierAdmission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on, answer any other with 404 or 401."""
        if scope["type"] != "http":
            await _close(scope, send)
            return
        path = scope["path"]
        if path == "/health":
            await self._app(scope, _bounded(receive), send)
        elif not path.startswith(_PUBLIC_PREFIXES) or path in _CLOSED_PATHS:
            await _answer(send, 404)
        elif not await self._is_admitted(scope):
            await _answer(send, 401)
        elif path == _PUSH_MESSAGES_PATH:
            await self._pass_bounded_trees(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive), send)

    async def _pass_bounded_trees(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Imported here: the commands that only name this module's constants load no Flower.
        from server.object_trees import MESSAGE_BYTES_MAX, are_bounded

        # The trees go to the ServerApp as they are, all sites' in one answer: none may be so large
        # or so deep that the answer cannot be read.
        body = await _read_body(receive, MESSAGE_BYTES_MAX)
        if body is None or not are_bounded(body):
            await _answer(send, 413)
        else:
            await self._app(scope, _replayed(body, receive), send)

    async def _is_admitted(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == COURIER_KEY_HEADER]
        return len(given) == 1 and await self._admission.is_admitted(given[0])


class OperatorPathControl:
    """ASGI middleware of the operator listener: Runtime API, and Control API with the token."""

    def __init__(self, app: App, *, token: str) -> None:
        self._app = app
        self._token = token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on, answer any other with 404 or 401."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await _close(scope, send)
            return
        path = scope["path"]
        if path == "/health" or path.startswith(_RUNTIME_PREFIXES):
            await self._app(scope, _bounded(receive), send)
        elif path.startswith(_CONTROL_PREFIX):
            if self._has_token(scope):
                await self._app(scope, _bounded(receive), send)
            else:
                await _answer(send, 401)
        else:
            await _answer(send, 404)

    def _has_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == OPERATOR_TOKEN_HEADER]
        return len(given) == 1 and hmac.compare_digest(given[0], self._token)


def serve(home: Path) -> None:
    """Run the SuperLink of one coordinator until SIGTERM or SIGINT."""
    paths = CoordinatorPaths(home)
    config = read_config(paths)
    asyncio.run(_serve(_flower_app(paths, config), paths, config))


def _flower_app(paths: CoordinatorPaths, config: ServerConfig) -> App:
    # Imported here: Flower's server takes seconds to load, and only this process needs it.
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    certificates = (
        paths.ca_certificate.read_bytes(),
        paths.server_certificate.read_bytes(),
        paths.server_key.read_bytes(),
    )
    lifespan_config = SuperLinkLifespanConfig(
        control_address="127.0.0.1:0",
        health_server_address=None,
        host="127.0.0.1",
        port=config.operator_port,
        insecure=False,
        certificates=certificates,
        superexec_auth_secret=paths.superexec_secret.read_bytes(),
        # Who may use the Control API is decided by OperatorPathControl, before Flower sees it.
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(paths.ca_certificate),
        ssl_certfile=str(paths.server_certificate),
        ssl_keyfile=str(paths.server_key),
        database=str(paths.flower_database),
        isolation="process",
        runtime_dependency_install=False,
    )
    app: App = create_app(lifespan_config, SuperLinkLifespan)
    return app


async def _serve(app: App, paths: CoordinatorPaths, config: ServerConfig) -> None:
    directory = SiteDirectory(Database.of(paths, config), SystemClock())
    token = paths.operator_token.read_text(encoding="ascii").strip()
    common: dict[str, Any] = {
        "ssl_keyfile": str(paths.server_key),
        "ssl_certfile": str(paths.server_certificate),
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 5,
    }
    operator = uvicorn.Server(
        uvicorn.Config(
            OperatorPathControl(app, token=token),
            host="127.0.0.1",
            port=config.operator_port,
            lifespan="on",
            **common,
        )
    )
    public = PublicServer(
        uvicorn.Config(
            PublicPathControl(app, admission=CourierAdmission(directory.active_sites)),
            lifespan="off",
            ws="none",
            **common,
        ),
        _listen(config),
    )
    quieten_logs()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, operator, public)
    # serve() installs its own handlers for the first server only; ours stop both.
    tasks = [asyncio.create_task(_run(server)) for server in (operator, public)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    _stop(operator, public)
    await asyncio.gather(*tasks)


def _listen(config: ServerConfig) -> PublicListener:
    try:
        return PublicListener(
            config.listen_host,
            config.port,
            most=connections_max(),
            most_of_one=config.connections_per_address_max,
        )
    except OSError as error:
        raise ServiceError(
            "the port for sites cannot be opened",
            expected=f"{config.listen_host}:{config.port} free and ours to use",
            arrived=error.strerror or type(error).__name__,
            todo="end what holds the port, or correct listen_host and port in server.toml",
        ) from None


async def _run(server: uvicorn.Server) -> None:
    # `Server.serve` replaces the process's signal handlers; `_serve` is what it wraps.
    await server._serve()


def _stop(*servers: uvicorn.Server) -> None:
    for server in servers:
        server.should_exit = True


def _bounded(receive: Receive) -> Receive:
    left = _BODY_BYTES_MAX

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        # A disconnect is what Flower expects of a client that gives up.
        return message if left >= 0 else {"type": "http.disconnect"}

    return bounded


async def _read_body(receive: Receive, bytes_max: int) -> bytes | None:
    """Return a whole body, or None for one that is larger or never ends."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or len(body) > bytes_max:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


async def _answer(send: Send, status: int) -> None:
    # Whoever is refused is not kept: the connection is for those who may use it.
    headers = [(b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _close(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
