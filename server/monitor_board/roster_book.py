"""The rosters that this board took, each verified and following the one before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection, insert, select

from common import limits
from common.crypto.keys import VerifyKey
from common.errors import ProtocolError
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.roster_checks import check_in_force
from common.protocol.monitoring.roster_file import read_roster, verify_roster
from server.monitor_board.storage.tables import rosters


@dataclass(frozen=True)
class RosterBook:
    """Every roster taken so far, the oldest first; at least one.

    Args:
        versions: each names the one before by its digest.
    """

    versions: tuple[MonitoringRoster, ...]

    def in_force(self, now_s: int) -> MonitoringRoster:
        """Return the newest roster whose time has begun.

        Raises:
            ProtocolError: O9 when it has ended, or none has begun.
        """
        begun = [item for item in self.versions if _begins_s(item) <= now_s]
        newest = begun[-1] if begun else self.versions[0]
        check_in_force(newest, now_s)
        return newest

    def until(self, now_s: int) -> tuple[MonitoringRoster, ...]:
        """Return all rosters up to the one in force, the last one; raises as `in_force`."""
        newest = self.in_force(now_s)
        return (*self.before(newest), newest)

    def before(self, roster: MonitoringRoster) -> tuple[MonitoringRoster, ...]:
        """Return the rosters before one."""
        return tuple(item for item in self.versions if item.version < roster.version)

    def newest(self) -> MonitoringRoster:
        """Return the newest roster, begun or not."""
        return self.versions[-1]


def read_book(connection: Connection) -> RosterBook:
    """Return the rosters in the store; raises `ProtocolError` when there is none."""
    rows = connection.execute(select(rosters.c.content).order_by(rosters.c.version)).all()
    if not rows:
        raise ProtocolError(
            "this board has no roster",
            expected="a roster that the consortium's authority signed",
            arrived="none",
            todo="run `cohortium-board roster publish FILE`, or wait until the relay brings one",
            number="O5",
        )
    return RosterBook(tuple(_read(row.content) for row in rows))


def take_roster(
    connection: Connection, data: bytes, *, authority: VerifyKey, now_s: int
) -> MonitoringRoster:
    """Verify a roster against the authority and the newest one taken, and keep it.

    Its time is looked at when it is used, not here: one that begins next week must not be lost,
    and one that has ended is needed by those after it. The same again changes nothing.

    Raises:
        ProtocolError: O1 to O8.
        SignatureError: O2.
    """
    newest = connection.execute(
        select(rosters.c.content).order_by(rosters.c.version.desc()).limit(1)
    ).one_or_none()
    pinned = None if newest is None else _read(newest.content)
    claimed = read_roster(data)
    known = select(rosters.c.content).where(rosters.c.digest == claimed.digest)
    if connection.execute(known).first() is not None:
        return claimed
    roster = verify_roster(data, authority=authority, now_s=claimed.not_before_s, pinned=pinned)
    connection.execute(
        insert(rosters).values(
            version=roster.version, digest=roster.digest, content=data, taken_at_s=now_s
        )
    )
    return roster


def _begins_s(roster: MonitoringRoster) -> int:
    return roster.not_before_s - limits.CLOCK_SKEW_S_MAX


@lru_cache(maxsize=64)
def _read(data: bytes) -> MonitoringRoster:
    return read_roster(data)
