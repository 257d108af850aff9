"""The time, as a value that tests and simulations can fix."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Anything that tells the time in whole seconds since 1970, UTC."""

    def now_s(self) -> int:
        """Return seconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The operating system's clock."""

    def now_s(self) -> int:
        """Return seconds since 1970-01-01T00:00:00Z."""
        return int(time.time())


@dataclass
class FixedClock:
    """A clock that moves only when told."""

    seconds: int = 1_790_000_000

    def now_s(self) -> int:
        """Return the fixed seconds."""
        return self.seconds


def utc_text(seconds: int) -> str:
    """Return seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
