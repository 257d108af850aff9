"""When an old opening key is deleted: no roster names it, and nothing that waits needs it."""

from __future__ import annotations

from collections.abc import Iterable

from common.protocol.monitoring.report_envelope import read_report_header
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.roster_book import RosterBook

DAY_S = 86_400


def expired_keys(
    keys: OpeningKeys,
    book: RosterBook,
    *,
    waiting: Iterable[bytes],
    retention_days: int,
    now_s: int,
) -> tuple[str, ...]:
    """Return the fingerprints of keys to delete.

    A key goes when the roster that dropped it has been in force for its grace and the retention,
    and no report that waits is sealed to it. A key that no roster ever named is the next one.

    Args:
        waiting: envelopes that are not opened yet.
        retention_days: of board.toml.
    """
    needed = {name for envelope in waiting for name in read_report_header(envelope).recipients}
    found = []
    for fingerprint in keys.keys:
        dropped = _dropped_by(book, fingerprint)
        if dropped is None or fingerprint in needed:
            continue
        if now_s > dropped.not_before_s + dropped.grace_s + retention_days * DAY_S:
            found.append(fingerprint)
    return tuple(found)


def _dropped_by(book: RosterBook, fingerprint: str) -> MonitoringRoster | None:
    """Return the first roster after the last one in which a key was in use, if there is one."""
    dropped, was_named = None, False
    for roster in book.versions:
        is_named = any(
            board.sealing_key.fingerprint == fingerprint and board.status is Standing.ACTIVE
            for board in roster.boards
        )
        if is_named:
            dropped, was_named = None, True
        elif was_named and dropped is None:
            dropped = roster
    return dropped
