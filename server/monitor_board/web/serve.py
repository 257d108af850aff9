"""Start the dashboard: where it listens, its tokens, and what it says on the terminal."""

from __future__ import annotations

import ipaddress
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from common.clock import SystemClock
from common.errors import ConfigError, ServiceError
from server.monitor_board.web.access import Access, new_token, token_digest, write_private
from server.monitor_board.web.app import Dashboard, make_app
from server.monitor_board.web.assets import read_assets
from server.monitor_board.web.view_source import ViewMaker, ViewSource
from server.public_listener import PublicListener, PublicServer

LOGIN_TOKEN: Final = "login-token"  # noqa: S105 (a file's name)
METRICS_TOKEN: Final = "metrics-token"  # noqa: S105 (a file's name)
_CONNECTIONS_MAX: Final = 100

logger = logging.getLogger("cohortium.board")


@dataclass(frozen=True)
class Listen:
    """Where the dashboard listens.

    Args:
        certificate, key: PEM files; both or neither.
        names: further host names under which browsers come.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()

    @property
    def is_tls(self) -> bool:
        """Whether pages travel encrypted."""
        return self.certificate is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}/login"

    def check(self) -> None:
        """Raise `ConfigError` for half of TLS, or for another machine's reach without it."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(
                "TLS needs two files",
                expected="a certificate and its key",
                arrived="one of them",
                todo="give both --certificate and --key, or neither",
            )
        if not self.is_loopback and not self.is_tls:
            raise ConfigError(
                "the dashboard does not listen beyond this machine without TLS",
                expected="a loopback address, or a certificate and its key",
                arrived=f"host {self.host} and no certificate",
                todo="give --certificate and --key, or listen on 127.0.0.1",
            )


class TokenDesk:
    """Where one-time tokens go: a file of mode 0600 and, on a terminal, its screen.

    Output that is not a terminal may end in a log; a token never goes there.
    """

    def __init__(self, folder: Path, listen: Listen) -> None:
        self._file = folder / LOGIN_TOKEN
        self._listen = listen

    def give(self, token: str) -> None:
        """Put out the next one-time token."""
        write_private(self._file, token)
        if sys.stdout.isatty():
            # After the number sign it stays in the browser: no request and no log has it.
            print(f"Log in once: {self._listen.url}#{token}", flush=True)
        else:
            print(f"{self._listen.url}: the one-time token is in {self._file}", flush=True)


def serve(maker: ViewMaker, folder: Path, listen: Listen) -> None:
    """Serve the dashboard until it is stopped.

    Args:
        folder: of the tokens.

    Raises:
        ConfigError: for an unsafe place to listen.
        ServiceError: when it does not come up.
    """
    listen.check()
    clock = SystemClock()
    source = ViewSource(maker, now_s=clock.now_s, failed=_say_failure)
    metrics_token = _metrics_token(folder / METRICS_TOKEN)
    access = Access(clock, on_new_token=TokenDesk(folder, listen).give)
    own = ("localhost", "127.0.0.1", "::1") if listen.is_loopback else ()
    board = Dashboard(
        source=source,
        access=access,
        assets=read_assets(),
        metrics_digest=token_digest(metrics_token),
        hosts=(listen.host, *own, *listen.names),
        is_tls=listen.is_tls,
    )
    try:
        listener = PublicListener(
            listen.host, listen.port, most=_CONNECTIONS_MAX, most_of_one=_CONNECTIONS_MAX // 2
        )
    except OSError as error:
        raise _not_up(listen, error) from error
    with listener:
        PublicServer(_server_config(board, listen), listener).run()


def _metrics_token(path: Path) -> str:
    """Return the token of `/metrics`, which stays the same over restarts."""
    try:
        return path.read_text(encoding="ascii").strip() or _new_metrics_token(path)
    except FileNotFoundError:
        return _new_metrics_token(path)


def _new_metrics_token(path: Path) -> str:
    token = new_token()
    write_private(path, token)
    return token


def _server_config(board: Dashboard, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(board),
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
        http="h11",
        timeout_graceful_shutdown=5,
    )


def _say_failure(kind: str) -> None:
    logger.error("new views could not be made: %s; the former ones are shown", kind)


def _not_up(listen: Listen, error: OSError) -> ServiceError:
    return ServiceError(
        "the dashboard did not come up",
        expected=f"to listen on {listen.host}, port {listen.port}",
        arrived=error.strerror or type(error).__name__,
        todo="stop what uses the port, or give another with --port",
    )
