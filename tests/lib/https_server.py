"""What a site meets on the way out: a TLS server that tells a time, and an HTTP proxy."""

from __future__ import annotations

import email.utils
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@contextmanager
def https_server(certificate: Path, key: Path, *, now_s: int | None) -> Iterator[int]:
    """Serve 200 with this time (None: no date at all) on loopback and yield the port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            if now_s is not None:
                self.send_header("Date", email.utils.formatdate(now_s, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with _running(server) as port:
        yield port


class Proxy(ThreadingHTTPServer):
    """A proxy that knows CONNECT only and counts its tunnels, or refuses every one."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.tunnels: list[str] = []
        self.refuses = refuses
        super().__init__(("127.0.0.1", 0), _Connect)


class _Connect(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        proxy = self.server
        assert isinstance(proxy, Proxy)
        proxy.tunnels.append(self.path)
        if proxy.refuses:
            self.send_error(403)
            return
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as beyond:
            self.send_response_only(200)
            self.end_headers()
            _relay(self.connection, beyond)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _relay(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [], 30)[0]:
            try:
                content = source.recv(1 << 16)
            except OSError:
                return
            if not content:
                return
            with suppress(OSError):
                (other if source is one else one).sendall(content)


@contextmanager
def running_proxy(*, refuses: bool = False) -> Iterator[Proxy]:
    """Run a proxy on loopback; meanwhile forget that of whoever runs the tests, and what it is not
    for: often loopback."""
    proxy = Proxy(refuses=refuses)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "no_grpc_proxy", "http_proxy", "https_proxy", "grpc_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        with _running(proxy):
            yield proxy


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
