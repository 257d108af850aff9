"""Who calls the relay, and how much of it one member may take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from common.crypto.certificates import BOARD_PREFIX
from server.config import RelayConfig

_FIRST_WAIT_MS: Final = 100


@dataclass(frozen=True)
class Member:
    """The holder of a client certificate.

    Args:
        member_id: the site's id, or the board's.
        is_board: a monitor board or an aggregator.
    """

    member_id: str
    is_board: bool


def member_of(common_name: str) -> Member:
    """Return whom the name in a certificate of the consortium's authority means."""
    board_id = common_name.removeprefix(BOARD_PREFIX)
    return Member(board_id, is_board=board_id != common_name)


class TooMuch(Exception):
    """A member asks for more than its share.

    Args:
        wait_ms: after which it may try again.
    """

    def __init__(self, wait_ms: int) -> None:
        super().__init__()
        self.wait_ms = wait_ms


class MemberLimits:
    """How often, and how much at once, each member may call.

    Each has an account of calls that fills evenly and holds one minute's calls.

    Args:
        clock_s: monotonic seconds; replaced only in tests.
    """

    def __init__(self, config: RelayConfig, *, clock_s: Callable[[], float] = time.monotonic):
        self._config = config
        self._clock_s = clock_s
        self._accounts: dict[Member, tuple[float, float]] = {}  # calls left, and when that was
        self._at_once: Counter[Member] = Counter()

    @contextmanager
    def call(self, member: Member) -> Iterator[None]:
        """Count one call while it lasts; raises `TooMuch`."""
        if self._at_once[member] >= self._config.calls_at_once_max:
            raise TooMuch(_FIRST_WAIT_MS)
        self._take(member)
        self._at_once[member] += 1
        try:
            yield
        finally:
            self._at_once[member] -= 1
            if not self._at_once[member]:
                del self._at_once[member]

    def _take(self, member: Member) -> None:
        per_minute = (
            self._config.board_calls_per_minute_max
            if member.is_board
            else self._config.calls_per_minute_max
        )
        now = self._clock_s()
        left, at = self._accounts.get(member, (float(per_minute), now))
        left = min(per_minute, left + (now - at) * per_minute / 60)
        if left < 1:
            self._accounts[member] = (left, now)
            raise TooMuch(1 + int((1 - left) * 60_000 / per_minute))
        self._accounts[member] = (left - 1, now)
