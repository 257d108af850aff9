"""The port that the whole network reaches: how many may come, and how long each may take.

TLS asks sites for no certificate, so anybody may connect. Public and operator listeners share one
process and one table of open files: whoever opens connections and says nothing would lock the
operator, the SuperExec and every site out. The bounds here are on silence and on numbers, never on
the time of an upload that moves: a hospital's line may be slow.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import resource
import socket
import time
import weakref
from collections import Counter
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HANDSHAKE_S: Final = 10.0  # for TLS; a handshake is two round trips
CLOSE_S: Final = 5.0  # for the other side's goodbye in TLS
HEAD_S: Final = 10.0  # for the head of a request, from when it is awaited
BODY_WINDOW_S: Final = 60.0  # a body must move in each such window ...
BODY_BYTES_MIN: Final = 4096  # ... by this much: 68 bytes a second, below any line in use
UNREAD_MS: Final = 120_000  # an answer that nobody takes, or a line that died
CONNECTIONS_MAX: Final = 4096
DESCRIPTORS_WANTED: Final = 16_384  # four times as many: SQLite and the operator's side need some
BACKLOG: Final = 1024
REPEAT_S: Final = 60.0

logger = logging.getLogger("cohortium.public")


class OncePerMinute(logging.Filter):
    """Lets a message through once a minute: an outsider's attempts must not fill the disk.

    Args:
        only: how the messages start that are meant; every other passes.
    """

    def __init__(self, *only: str) -> None:
        super().__init__()
        self._only = only
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this record is written."""
        text = record.msg if isinstance(record.msg, str) else ""
        if not text.startswith(self._only):
            return True
        key, now = text[:40], time.monotonic()
        if now - self._said.get(key, float("-inf")) < REPEAT_S:
            return False
        self._said[key] = now
        return True


def quieten_logs() -> None:
    """Write what an outsider can cause at most once a minute."""
    logger.addFilter(
        OncePerMinute("connections are", "Invalid HTTP", "Unsupported", "No supported")
    )
    logging.getLogger("asyncio").addFilter(OncePerMinute("socket.accept()"))


def connections_max() -> int:
    """Raise this process's soft limit of open files and return how many connections fit below it.

    Half of the files, whatever the limit is, stay for the databases and the operator's side.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, soft // 2)


class _Connection(socket.socket):
    """An accepted connection that says when it is closed, however it ends."""

    released: weakref.finalize[Any, Any] | None = None

    def close(self) -> None:
        """Close and give the place back."""
        super().close()
        if self.released is not None:
            self.released()


class PublicListener(socket.socket):
    """A listening socket that takes so many connections at once, and so many from one address.

    A connection beyond is closed before TLS begins. An IPv6 address counts by its /64 network.

    Args:
        host, port: where to listen.
        most: at once.
        most_of_one: at once from one address.
    """

    def __init__(self, host: str, port: int, *, most: int, most_of_one: int) -> None:
        [found, *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        super().__init__(found[0], socket.SOCK_STREAM)
        self._most = most
        # One address never takes the last half, so that other hospitals find a place.
        self._most_of_one = min(most_of_one, max(1, most // 2))
        self._open: Counter[str] = Counter()
        self._tired_until = 0.0
        self.setblocking(False)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.bind(found[4])
        except OSError:
            self.close()
            raise

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one connection; raises `ConnectionAbortedError` for one that is refused."""
        if time.monotonic() < self._tired_until:
            raise BlockingIOError
        try:
            plain, address = super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # asyncio tries again after a second, but not before it has tried `backlog` times.
                self._tired_until = time.monotonic() + 0.9
            raise
        source = _source(str(address[0]))
        if self._open.total() >= self._most or self._open[source] >= self._most_of_one:
            plain.close()
            logger.warning(
                "connections are refused: %d are open, %d of them from %s",
                self._open.total(),
                self._open[source],
                source,
            )
            raise ConnectionAbortedError
        connection = _Connection(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._open[source] += 1
        connection.released = weakref.finalize(connection, self._release, source)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        return connection, address

    def _release(self, source: str) -> None:
        self._open[source] -= 1
        if self._open[source] <= 0:
            del self._open[source]


class PublicProtocol(H11Protocol):
    """HTTP/1.1 in which a request's head must come in time and its body must move."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = logger
        self._received = 0
        self._phase: object = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, or for the rest of a body that nobody wants."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        is_answered = self.cycle is not None and self.cycle.response_complete
        if (state, is_answered) == self._phase:
            return
        self._phase = (state, is_answered)
        self._stop()
        if self.transport.is_closing():
            return
        if state is h11.IDLE or (state is h11.SEND_BODY and is_answered):
            self._timer = self.loop.call_later(HEAD_S, self.transport.abort)
        elif state is h11.SEND_BODY:
            self._await_progress()

    def _await_progress(self) -> None:
        before = self._received
        self._timer = self.loop.call_later(BODY_WINDOW_S, self._check_progress, before)

    def _check_progress(self, before: int) -> None:
        # While we do not read, the other side cannot send.
        if self.flow.read_paused or self._received - before >= BODY_BYTES_MIN:
            self._await_progress()
        else:
            self.transport.abort()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PublicServer(uvicorn.Server):
    """uvicorn on a listener of ours; TLS must be complete in time, which uvicorn cannot ask for."""

    def __init__(self, config: uvicorn.Config, listener: PublicListener) -> None:
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        config = self.config

        def make_protocol() -> asyncio.Protocol:
            return PublicProtocol(
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        server = await loop.create_server(
            make_protocol,
            sock=self._listener,
            ssl=config.ssl,
            backlog=BACKLOG,
            # Without TLS, on loopback, asyncio refuses to be told of its times.
            ssl_handshake_timeout=HANDSHAKE_S if config.ssl else None,
            ssl_shutdown_timeout=CLOSE_S if config.ssl else None,
        )
        self.servers = [server]
        self.started = True


def _source(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 network of an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
