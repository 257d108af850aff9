"""Path control: hospitals reach the Fleet API only, operators need the token."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common import limits
from server import superlink
from server.superlink import OPERATOR_TOKEN_HEADER, OperatorPathControl, PublicPathControl

TOKEN = "ab" * 32
FLEET_PATHS = (
    "/v1/fleet/activate-node",
    "/v1/fleet/deactivate-node",
    "/v1/fleet/send-node-heartbeat",
    "/v1/fleet/pull-messages",
    "/v1/fleet/push-messages",
    "/v1/fleet/push-object",
    "/v1/fleet/pull-object",
    "/v1/fleet/confirm-message-received",
    "/v1/fleet/get-run",
    "/v1/fleet/get-fab",
)
CONTROL_PATHS = (
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/control/register-node",
    "/v1/control/stream-logs",
    "/v1/control/get-login-details",
)
RUNTIME_PATHS = ("/v1/runtime/pull-app-inputs", "/v1/runtime/push-messages")
OTHER_PATHS = (
    "/",
    "",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/health/",
    "/healthy",
    "/v1",
    "/v1/fleet",
    "/v2/fleet/pull-messages",
    "/V1/FLEET/pull-messages",
    "//v1/fleet/pull-messages",
    "/x/v1/fleet/pull-messages",
    "/v1/controlled",
    "/v1/fleetcontrol/start-run",
)


class _App:
    """Flower, as far as these tests are concerned: reads the body and answers 200."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.messages: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope.get("path", scope["type"]))
        if scope["type"] == "lifespan":
            return
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _ask(
    control: Any, path: str, *, headers: Any = (), kind: str = "http", body: Any = (b"",)
) -> list[Any]:
    sent: list[Any] = []
    chunks = list(body)

    async def receive() -> Any:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": list(headers), "method": "POST"}
    asyncio.run(control(scope, receive, send))
    return sent


def _status(sent: list[Any]) -> int:
    return int(sent[0]["status"])


@pytest.fixture
def app() -> _App:
    return _App()


@pytest.mark.parametrize("path", ["/health", *FLEET_PATHS])
def test_a_hospital_reaches_health_and_the_fleet_api(path: str, app: _App) -> None:
    assert _status(_ask(PublicPathControl(app), path)) == 200
    assert app.paths == [path]


@pytest.mark.parametrize(
    "path",
    [
        *OTHER_PATHS,
        *CONTROL_PATHS,
        *RUNTIME_PATHS,
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
    ],
)
def test_a_hospital_reaches_nothing_else_even_with_the_token(path: str, app: _App) -> None:
    headers = [(OPERATOR_TOKEN_HEADER, TOKEN.encode())]
    assert _status(_ask(PublicPathControl(app), path, headers=headers)) == 404
    assert app.paths == []


@pytest.mark.parametrize("path", CONTROL_PATHS)
def test_the_control_api_opens_with_the_token(path: str, app: _App) -> None:
    headers = [(b"host", b"x"), (OPERATOR_TOKEN_HEADER, TOKEN.encode())]
    assert _status(_ask(OperatorPathControl(app, token=TOKEN), path, headers=headers)) == 200
    assert app.paths == [path]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(OPERATOR_TOKEN_HEADER, b"")],
        [(OPERATOR_TOKEN_HEADER, TOKEN[:-1].encode())],
        [(OPERATOR_TOKEN_HEADER, TOKEN.upper().encode())],
        [(OPERATOR_TOKEN_HEADER, TOKEN.encode() + b" ")],
        [(OPERATOR_TOKEN_HEADER, TOKEN.encode()), (OPERATOR_TOKEN_HEADER, TOKEN.encode())],
        [(b"authorization", b"Bearer " + TOKEN.encode())],
        [(OPERATOR_TOKEN_HEADER, "é".encode())],
    ],
    ids=["none", "empty", "short", "upper", "longer", "twice", "elsewhere", "not ascii"],
)
def test_the_control_api_is_shut_without_exactly_the_token(headers: Any, app: _App) -> None:
    for path in CONTROL_PATHS:
        sent = _ask(OperatorPathControl(app, token=TOKEN), path, headers=headers)
        assert _status(sent) == 401
    assert app.paths == []


@pytest.mark.parametrize("path", ["/health", *RUNTIME_PATHS])
def test_the_superexec_reaches_the_runtime_api_with_its_own_secret(path: str, app: _App) -> None:
    assert _status(_ask(OperatorPathControl(app, token=TOKEN), path)) == 200


@pytest.mark.parametrize("path", [*OTHER_PATHS, *FLEET_PATHS, "/v1/fleet/register-node"])
def test_the_operator_listener_has_nothing_else(path: str, app: _App) -> None:
    headers = [(OPERATOR_TOKEN_HEADER, TOKEN.encode())]
    sent = _ask(OperatorPathControl(app, token=TOKEN), path, headers=headers)
    assert _status(sent) == 404
    assert app.paths == []


def test_a_web_socket_is_closed_on_both(app: _App) -> None:
    for control in (PublicPathControl(app), OperatorPathControl(app, token=TOKEN)):
        sent = _ask(control, "/v1/fleet/pull-messages", kind="websocket")
        assert sent == [{"type": "websocket.close", "code": 1008}]
    assert app.paths == []


def test_flowers_lifespan_runs_on_the_operator_listener_only(app: _App) -> None:
    _ask(OperatorPathControl(app, token=TOKEN), "", kind="lifespan")
    assert len(app.paths) == 1
    assert _ask(PublicPathControl(app), "", kind="lifespan") == []
    assert len(app.paths) == 1


@pytest.mark.parametrize("is_public", [True, False])
def test_a_body_above_the_bound_is_cut_off(
    is_public: bool, app: _App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_BODY_BYTES_MAX", 10)
    control: Any = PublicPathControl(app) if is_public else OperatorPathControl(app, token=TOKEN)
    path = FLEET_PATHS[0] if is_public else RUNTIME_PATHS[0]
    _ask(control, path, body=[b"12345", b"12345"])
    assert [message["type"] for message in app.messages] == ["http.request"] * 2
    app.messages.clear()
    _ask(control, path, body=[b"12345", b"123456", b"more"])
    assert [message["type"] for message in app.messages] == ["http.request", "http.disconnect"]


def test_an_envelope_of_the_greatest_size_fits_the_bound() -> None:
    assert superlink._BODY_BYTES_MAX > limits.ENVELOPE_BYTES_MAX


def test_flower_still_has_its_apis_under_the_paths_we_let_through() -> None:
    from flwr.superlink.routers.control.router import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    fleet_paths = {route.path for route in fleet.routes}  # type: ignore[attr-defined]
    control_paths = {route.path for route in control.routes}  # type: ignore[attr-defined]
    # A new path of the Fleet API is a decision: open it or close it here.
    assert fleet_paths == {*FLEET_PATHS, *superlink._CLOSED_PATHS}
    assert all(path.startswith("/v1/control/") for path in control_paths)
