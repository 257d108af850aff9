"""Path control: hospitals reach the Fleet API only, operators need the token."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import Message
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common import limits
from common.crypto.node_key import make_node_key, read_node_key
from common.errors import StoreError
from common.flower_content import pack_envelope
from server import courier_admission, object_trees, superlink
from server.courier_admission import CourierAdmission
from server.superlink import (
    COURIER_KEY_HEADER,
    OPERATOR_TOKEN_HEADER,
    OperatorPathControl,
    PublicPathControl,
)

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


class _Sites:
    """Sites as the store has them, changed by a test."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.fails = False
        self.reads = 0

    def __call__(self) -> list[Any]:
        self.reads += 1
        if self.fails:
            raise StoreError("no store", expected="one", arrived="none", todo="wait")
        return [SimpleNamespace(node_public_key=key) for key in self.keys]


@pytest.fixture(scope="module")
def courier(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tuple[bytes, bytes]]:
    """A courier's enrolled key and the header that Flower's own client sends with it."""
    path = tmp_path_factory.mktemp("node") / "node.key"
    text = make_node_key(path)
    key = read_node_key(path)
    request = httpx.Request("POST", "https://coordinator")
    context: Any = SimpleNamespace(request=request)
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda _: httpx.Response(200))
    return text, (COURIER_KEY_HEADER, request.headers[COURIER_KEY_HEADER.decode()].encode())


def _public(app: _App, sites: _Sites) -> PublicPathControl:
    return PublicPathControl(app, admission=CourierAdmission(sites))


def _status(sent: list[Any]) -> int:
    return int(sent[0]["status"])


@pytest.fixture
def app() -> _App:
    return _App()


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_an_active_sites_courier_reaches_the_fleet_api(path: str, app: _App, courier: Any) -> None:
    key, header = courier
    assert _status(_ask(_public(app, _Sites(key)), path, headers=[header])) == 200
    assert app.paths == [path]


def test_everybody_reaches_health(app: _App) -> None:
    assert _status(_ask(_public(app, _Sites()), "/health")) == 200


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_whoever_names_no_active_sites_key_is_stopped_before_flower(
    path: str, app: _App, courier: Any
) -> None:
    key, header = courier
    control = _public(app, _Sites(key))
    for headers in ([], [header, header], [(COURIER_KEY_HEADER, b"")], [(b"x", header[1])]):
        assert _status(_ask(control, path, headers=headers)) == 401
    assert _status(_ask(_public(app, _Sites()), path, headers=[header])) == 401
    assert app.paths == []


def test_a_suspended_courier_is_stopped_within_a_second_and_readmitted_with_the_same_key(
    app: _App, courier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, header = courier
    sites = _Sites(key)
    admission = CourierAdmission(sites)
    now = [100.0]
    monkeypatch.setattr(courier_admission.time, "monotonic", lambda: now[0])

    def asked() -> bool:
        return asyncio.run(admission.is_admitted(header[1]))

    assert asked()
    sites.keys.clear()
    now[0] += 0.5
    assert asked()  # within the second
    now[0] += 0.6
    assert not asked()
    sites.keys.append(key)
    now[0] += 1.0
    assert asked()
    sites.fails = True
    now[0] += 1.0
    assert asked()  # a store that is busy for a moment throws nobody out
    assert sites.reads == 4


def test_nobody_is_admitted_before_the_store_was_ever_read(courier: Any) -> None:
    sites = _Sites(courier[0])
    sites.fails = True
    assert not asyncio.run(CourierAdmission(sites).is_admitted(courier[1][1]))


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
def test_a_hospital_reaches_nothing_else_even_with_the_token(
    path: str, app: _App, courier: Any
) -> None:
    key, header = courier
    headers = [(OPERATOR_TOKEN_HEADER, TOKEN.encode()), header]
    assert _status(_ask(_public(app, _Sites(key)), path, headers=headers)) == 404
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
    for control in (_public(app, _Sites()), OperatorPathControl(app, token=TOKEN)):
        sent = _ask(control, "/v1/fleet/pull-messages", kind="websocket")
        assert sent == [{"type": "websocket.close", "code": 1008}]
    assert app.paths == []


def test_flowers_lifespan_runs_on_the_operator_listener_only(app: _App) -> None:
    _ask(OperatorPathControl(app, token=TOKEN), "", kind="lifespan")
    assert len(app.paths) == 1
    assert _ask(_public(app, _Sites()), "", kind="lifespan") == []
    assert len(app.paths) == 1


@pytest.mark.parametrize("is_public", [True, False])
def test_a_body_above_the_bound_is_cut_off(
    is_public: bool, app: _App, courier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_BODY_BYTES_MAX", 10)
    key, header = courier
    control: Any = _public(app, _Sites(key)) if is_public else OperatorPathControl(app, token=TOKEN)
    path = FLEET_PATHS[0] if is_public else RUNTIME_PATHS[0]
    _ask(control, path, headers=[header], body=[b"12345", b"12345"])
    assert [message["type"] for message in app.messages] == ["http.request"] * 2
    app.messages.clear()
    _ask(control, path, headers=[header], body=[b"12345", b"123456", b"more"])
    assert [message["type"] for message in app.messages] == ["http.request", "http.disconnect"]


def _push(tree: ObjectTree) -> bytes:
    return PushMessagesRequest(message_object_trees=[tree]).SerializeToString()


def _deep(levels: int) -> ObjectTree:
    tree = ObjectTree(object_id="a" * 64)
    for _ in range(levels - 1):
        tree = ObjectTree(object_id="b" * 64, children=[tree])
    return tree


@pytest.mark.parametrize(
    "body",
    [
        _push(ObjectTree(children=[ObjectTree(object_id=f"{n:064x}") for n in range(100)])),
        _push(_deep(11)),
        b"\xff\xff not protobuf",
        bytes(object_trees.MESSAGE_BYTES_MAX + 1),
    ],
    ids=["parts", "depth", "nonsense", "size"],
)
def test_a_reply_of_too_many_parts_is_stopped_before_flower(
    body: bytes, app: _App, courier: Any
) -> None:
    key, header = courier
    control = _public(app, _Sites(key))
    path = "/v1/fleet/push-messages"
    assert _status(_ask(control, path, headers=[header], body=[body[:7], body[7:]])) == 413
    assert app.paths == []


def test_the_largest_envelopes_reply_is_passed_on_whole(
    app: _App, courier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    key, header = courier
    message = Message(
        pack_envelope(bytes(limits.ENVELOPE_BYTES_MAX)), dst_node_id=1, message_type="train"
    )
    body = _push(get_object_tree(message))
    chunks = [body[:100], body[100:]]
    sent = _ask(_public(app, _Sites(key)), "/v1/fleet/push-messages", headers=[header], body=chunks)
    assert _status(sent) == 200
    assert b"".join(item["body"] for item in app.messages) == body


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
