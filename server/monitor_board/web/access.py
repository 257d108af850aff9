"""Who may look: a one-time token opens a session; the session's cookie opens the pages.

Tokens and cookies are 256 random bits. Only their SHA-256 is kept, compared in constant time, and
neither is written to a log or put into an address.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.clock import Clock
from common.errors import ConfigError

SESSION_S: Final = 8 * 3600
IDLE_S: Final = 30 * 60
SESSIONS_MAX: Final = 64
ATTEMPTS_MAX: Final = 10
ATTEMPTS_WINDOW_S: Final = 60
ADDRESSES_MAX: Final = 1024
TOKEN_BYTES: Final = 32


def new_token() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner reads, over a former one.

    Raises:
        ConfigError: when the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content + "\n")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written",
            expected="a folder of the board that its user may write",
            arrived=error.strerror or type(error).__name__,
            todo="give the board's user the folder, and start again",
        ) from error


class Access:
    """Sessions of people who logged in.

    Args:
        on_new_token: is given each new one-time token: at the start, and when one was used.
    """

    def __init__(self, clock: Clock, *, on_new_token: Callable[[str], None]) -> None:
        self._clock = clock
        self._on_new_token = on_new_token
        self._failures: dict[str, deque[int]] = {}
        self._sessions: dict[bytes, tuple[int, int]] = {}  # digest -> began, last seen
        self._token = self._issue()

    def seconds_until_allowed(self, address: str) -> int:
        """Return how long an address may not try because it failed too often; 0 when it may."""
        failures, now = self._failures.get(address), self._clock.now_s()
        while failures and failures[0] <= now - ATTEMPTS_WINDOW_S:
            failures.popleft()
        if not failures or len(failures) < ATTEMPTS_MAX:
            return 0
        return max(1, failures[0] + ATTEMPTS_WINDOW_S - now)

    def log_in(self, token: str, *, address: str) -> str | None:
        """Return a new session's cookie for the one-time token, which is then used up."""
        if self.seconds_until_allowed(address):
            return None
        if not matches(token, self._token):
            self._note_failure(address)
            return None
        self._token = self._issue()
        self._forget_old()
        cookie, now = new_token(), self._clock.now_s()
        self._sessions[token_digest(cookie)] = (now, now)
        return cookie

    def is_inside(self, cookie: str | None) -> bool:
        """Return whether a cookie opens the pages, and note that it was used."""
        if not cookie:
            return False
        key, now = token_digest(cookie), self._clock.now_s()
        began, seen = self._sessions.get(key, (0, 0))
        if not began or now - began >= SESSION_S or now - seen >= IDLE_S:
            self._sessions.pop(key, None)
            return False
        self._sessions[key] = (began, now)
        return True

    def log_out(self, cookie: str | None) -> None:
        """End a session."""
        if cookie:
            self._sessions.pop(token_digest(cookie), None)

    def _note_failure(self, address: str) -> None:
        if address not in self._failures and len(self._failures) >= ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(address, deque()).append(self._clock.now_s())

    def _forget_old(self) -> None:
        while len(self._sessions) >= SESSIONS_MAX:
            oldest = min(self._sessions, key=lambda key: self._sessions[key][1])
            del self._sessions[oldest]

    def _issue(self) -> bytes:
        token = new_token()
        self._on_new_token(token)
        return token_digest(token)


def matches(given: str, digest: bytes) -> bool:
    """Return in constant time whether a token is the one with this digest."""
    return hmac.compare_digest(token_digest(given), digest)


def token_digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
