"""The port for sites: silence is cut off, numbers are bounded, and slow honest uploads pass."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from server import public_listener
from server.config import CoordinatorPaths
from server.public_listener import OncePerMinute, PublicListener, PublicServer
from tests.lib.memory_channel import copy_consortium

HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CLOSED_WITHIN_S = 20.0


class Served:
    """A running listener with TLS and an application that reads bodies, and what it saw."""

    def __init__(self, paths: CoordinatorPaths, *, most: int, most_of_one: int) -> None:
        self.bodies: list[int] = []
        self.answer_after_s = 0.0
        self.reads_bodies = True
        self.listener = PublicListener("127.0.0.1", 0, most=most, most_of_one=most_of_one)
        self.port = int(self.listener.getsockname()[1])
        self.trust = ssl.create_default_context(cafile=str(paths.ca_certificate))
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            ssl_certfile=str(paths.server_certificate),
            ssl_keyfile=str(paths.server_key),
            timeout_graceful_shutdown=1,
        )
        self.server = PublicServer(config, self.listener)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server._serve()))

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, self.reads_bodies
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.bodies.append(size)
        await asyncio.sleep(self.answer_after_s)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def raw(self) -> socket.socket:
        """Connect and say nothing."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=CLOSED_WITHIN_S)

    def secure(self) -> ssl.SSLSocket:
        """Connect and complete TLS."""
        return self.trust.wrap_socket(self.raw(), server_hostname="127.0.0.1")

    def asks(self) -> bytes:
        """Return the answer to one honest request, or nothing when none came."""
        with suppress(OSError), self.secure() as client:
            client.sendall(HEAD + b"Connection: close\r\n\r\n")
            return _all(client)
        return b""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorPaths:
    return copy_consortium(tmp_path_factory.mktemp("listener"))


@pytest.fixture
def serve(paths: CoordinatorPaths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setattr(public_listener, "HANDSHAKE_S", 0.4)
    monkeypatch.setattr(public_listener, "HEAD_S", 0.4)
    monkeypatch.setattr(public_listener, "BODY_WINDOW_S", 0.6)
    running: list[Served] = []

    def start(most: int = 50, most_of_one: int = 50) -> Served:
        served = Served(paths, most=most, most_of_one=most_of_one)
        running.append(served)
        served.thread.start()
        while not served.server.started:
            time.sleep(0.01)
        return served

    yield start
    for served in running:
        served.server.should_exit = True
        served.thread.join(10)
        assert not served.thread.is_alive()


def _all(client: socket.socket) -> bytes:
    content = b""
    while chunk := client.recv(1 << 16):
        content += chunk
    return content


@contextmanager
def _dripping(client: socket.socket, content: bytes, every_s: float) -> Iterator[None]:
    """Send a byte now and then until the block ends."""
    is_over = threading.Event()

    def drip() -> None:
        for byte in content:
            if is_over.wait(every_s):
                return
            with suppress(OSError):
                client.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _is_closed(client: socket.socket) -> bool:
    """Return whether the other side closes before our own long timeout."""
    try:
        return b"200" not in _all(client)
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_connection_without_tls_is_closed(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.raw() as silent, served.raw() as half:
        half.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a TLS hello
        assert _is_closed(silent)
        assert _is_closed(half)


def test_half_a_head_is_closed_however_it_drips(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.secure() as silent, served.secure() as half, served.secure() as dripping:
        half.sendall(HEAD)
        with _dripping(dripping, HEAD * 100, 0.05):
            assert _is_closed(dripping)
        assert _is_closed(silent)
        assert _is_closed(half)


def test_half_a_second_head_is_closed_too(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.secure() as client:
        client.sendall(HEAD + b"\r\n")
        assert b"200" in client.recv(4096)
        with _dripping(client, HEAD * 100, 0.05):
            assert _is_closed(client)


def test_a_body_that_stands_still_is_closed(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_listener, "BODY_BYTES_MIN", 100)
    served = serve()
    with served.secure() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 5000
        )
        with _dripping(client, b"x" * 1000, 0.05):
            assert _is_closed(client)
    assert served.bodies == []


def test_a_slow_body_that_moves_passes_however_long_it_takes(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_listener, "BODY_BYTES_MIN", 100)
    served = serve()
    with served.secure() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000\r\n\r\n"
        )
        for _ in range(30):  # three seconds: five windows, seven times a head's time
            time.sleep(0.1)
            client.sendall(b"x" * 100)
        assert b"200 OK" in _all(client)
    assert served.bodies == [3000]


def test_a_large_body_passes_whole(serve: Callable[..., Served]) -> None:
    served = serve()
    size = 64 << 20
    with served.secure() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        for _ in range(64):
            client.sendall(bytes(1 << 20))
        assert b"200 OK" in _all(client)
    assert served.bodies == [size]


def test_an_answer_may_take_longer_than_any_head(serve: Callable[..., Served]) -> None:
    served = serve()
    served.answer_after_s = 1.5
    assert b"200 OK" in served.asks()


def test_whoever_was_answered_cannot_go_on_with_a_body(serve: Callable[..., Served]) -> None:
    served = serve()
    served.reads_bodies = False
    with served.secure() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert b"200" in client.recv(4096)
        with _dripping(client, b"x" * 1000, 0.05):
            assert _is_closed(client)


def test_one_address_fills_its_share_and_places_come_back(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(public_listener, "HANDSHAKE_S", 2.0)
    served = serve(20, 6)
    crowd = [served.raw() for _ in range(30)]
    time.sleep(0.3)
    assert served.listener._open.total() == 6
    assert served.asks() == b""
    assert "connections are refused" in caplog.text
    for client in crowd:
        client.close()
    while served.listener._open.total():
        time.sleep(0.02)
    assert b"200 OK" in served.asks()
    while served.listener._open.total():
        time.sleep(0.02)


def test_one_address_never_takes_the_last_half(paths: CoordinatorPaths) -> None:
    with PublicListener("127.0.0.1", 0, most=10, most_of_one=1000) as listener:
        assert listener._most_of_one == 5


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_source_is_an_address_or_the_network_that_one_host_owns(
    address: str, source: str
) -> None:
    assert public_listener._source(address) == source


def test_what_an_outsider_can_cause_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(public_listener.time, "monotonic", lambda: now[0])
    once = OncePerMinute("socket.accept()")

    def passes(text: str) -> bool:
        return once.filter(logging.LogRecord("asyncio", logging.ERROR, "", 1, text, None, None))

    flood = "socket.accept() out of system resource\nsocket: <asyncio {}>"
    assert passes(flood.format(1))
    assert not any(passes(flood.format(number)) for number in range(2000))
    assert passes("something else")
    assert passes("something else")
    now[0] = 61.0
    assert passes(flood.format(1))


def test_half_of_the_open_files_stay_for_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"soft": 1024, "hard": 4096}
    monkeypatch.setattr(
        public_listener.resource, "getrlimit", lambda _: (limits["soft"], limits["hard"])
    )
    set_to: list[Any] = []
    monkeypatch.setattr(public_listener.resource, "setrlimit", lambda _, pair: set_to.append(pair))
    assert public_listener.connections_max() == 2048
    assert set_to == [(4096, 4096)]
    limits.update(soft=256, hard=256)
    assert public_listener.connections_max() == 128
    limits.update(soft=1 << 20, hard=1 << 20)
    assert public_listener.connections_max() == public_listener.CONNECTIONS_MAX


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    from common.errors import ServiceError
    from server import superlink
    from server.config import ServerConfig

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = ServerConfig(
            consortium="c",
            host="127.0.0.1",
            port=taken.getsockname()[1],
            operator_port=1,
            listen_host="127.0.0.1",
        )
        with pytest.raises(ServiceError) as caught:
            superlink._listen(config)
    assert str(config.port) in caught.value.expected
