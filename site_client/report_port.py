"""What the agent's socket needs of monitoring: sealed reports out, notices in.

The part of the agent that makes reports implements it; the socket and the courier know only bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

NOTHING: Final = "not monitored"


class ReportPort(Protocol):
    """Sealed reports out, notices of the relay in; called from several threads."""

    def outbox(self) -> Sequence[bytes]:
        """Return the envelopes that should be at the relay now, oldest first, always the same."""
        ...

    def deliver(self, notice: bytes, body: bytes) -> str:
        """Take one notice and say in a word what became of it; the same again changes nothing.

        Args:
            notice: signed, not verified yet.
            body: the parameters beside a promotion; else empty.
        """
        ...


class NothingToReport:
    """A site that reports nothing and wants no notice."""

    def outbox(self) -> Sequence[bytes]:
        """Return nothing."""
        return ()

    def deliver(self, notice: bytes, body: bytes) -> str:
        """Take nothing."""
        del notice, body
        return NOTHING
