"""The authority whose rosters this site takes, and the rosters that it took."""

from __future__ import annotations

import sqlite3
from typing import Final

from common.clock import Clock
from common.crypto.keys import VerifyKey
from common.errors import CohortiumError, EnrolmentError, LedgerError
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.roster_file import (
    AUTHORITY,
    read_roster,
    verify_roster_chain,
)
from common.protocol.monitoring.signed_notice import read_signed, verify_signed
from site_client.monitoring.outcomes import KNOWN, LATER, TAKEN, refused
from site_client.site_database import SiteDatabase

_NOT_IN_FORCE: Final = "O9"


class RosterPin:
    """What one site knows of who takes part; an older roster never comes back."""

    def __init__(self, database: SiteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def authority(self) -> VerifyKey | None:
        """Return the key that signs rosters, or None before `trust`."""
        rows = self._database.rows("SELECT authority FROM monitoring_trust")
        return VerifyKey.from_text(str(rows[0][0])) if rows else None

    def trust(self, authority: VerifyKey) -> None:
        """Pin the authority for good; raises `EnrolmentError` when another one is pinned."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO monitoring_trust VALUES (1, ?)", (authority.to_text(),)
            )
        pinned = self.authority()
        if pinned != authority:
            raise EnrolmentError(
                "another authority is trusted here",
                expected=f"the key {pinned.fingerprint if pinned else ''}",
                arrived=f"the key {authority.fingerprint}",
                todo="compare both with the consortium by telephone; a site that changes its "
                "consortium enrols in a new folder",
            )

    def roster(self) -> MonitoringRoster | None:
        """Return the pinned roster, whether or not it is in force now.

        Raises:
            LedgerError: it is not as the authority signed it.
        """
        newest = self._read_pinned(count_max=1)
        return newest[0] if newest else None

    def rosters(self) -> tuple[MonitoringRoster, ...]:
        """Return every roster that was pinned, the oldest first; raises as `roster`."""
        return tuple(reversed(self._read_pinned(count_max=-1)))

    def _read_pinned(self, *, count_max: int) -> list[MonitoringRoster]:
        authority = self.authority()
        rows = self._database.rows(
            "SELECT roster FROM monitoring_rosters WHERE is_pinned = 1 "
            "ORDER BY version DESC LIMIT ?",
            count_max,
        )
        if authority is None:
            return []
        found = []
        try:
            for row in rows:
                data = _bytes(row[0])
                verify_signed(read_signed(data), by=AUTHORITY, key=authority)
                found.append(read_roster(data))
        except CohortiumError:
            raise LedgerError(
                "the pinned roster is damaged",
                expected="a roster as the authority signed it",
                arrived="something else",
                todo="restore site/state from its backup; no report leaves until then",
            ) from None
        return found

    def take(self, data: bytes) -> str:
        """Take a roster if it follows the pinned one; return the outcome.

        Versions that came while this site was away may have ended: they wait until the one in force
        is there, and are then taken together, each as a pinned one: decisions were made under it.
        """
        authority, pinned = self.authority(), self.roster()
        if authority is None:
            return LATER
        try:
            offered = read_roster(data)
            verify_signed(read_signed(data), by=AUTHORITY, key=authority)
        except CohortiumError as error:
            return refused(error)
        if pinned is not None and offered.version <= pinned.version:
            return self._older(data, offered)
        self._keep(data, offered.version)
        waiting = self._waiting(pinned, offered)
        return self._pinned(waiting, authority, pinned, offered) if waiting else LATER

    def _pinned(
        self,
        waiting: list[bytes],
        authority: VerifyKey,
        pinned: MonitoringRoster | None,
        offered: MonitoringRoster,
    ) -> str:
        now_s = self._clock.now_s()
        try:
            taken = verify_roster_chain(waiting, authority=authority, now_s=now_s, pinned=pinned)
        except CohortiumError as error:
            if error.number == _NOT_IN_FORCE:
                return LATER
            self._forget(offered.version)
            return refused(error)
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE monitoring_rosters SET is_pinned = 1 WHERE version BETWEEN ? AND ?",
                (read_roster(waiting[0]).version, taken.version),
            )
            connection.execute(
                "DELETE FROM monitoring_rosters WHERE version < ? AND is_pinned = 0",
                (taken.version,),
            )
        return TAKEN

    def _older(self, data: bytes, offered: MonitoringRoster) -> str:
        rows = self._database.rows(
            "SELECT roster FROM monitoring_rosters WHERE version = ?", offered.version
        )
        newest = self.roster()
        is_other = bool(rows) and _bytes(rows[0][0]) != data
        if is_other or (newest is not None and offered.version == newest.version and not rows):
            return "refused O5"
        return KNOWN

    def _waiting(self, pinned: MonitoringRoster | None, offered: MonitoringRoster) -> list[bytes]:
        """Return the versions after the pinned one up to the newest without a gap, or none.

        Before any is pinned, they begin with the oldest version that the offered one builds on.
        """
        rows = self._database.rows(
            "SELECT version, roster FROM monitoring_rosters WHERE is_pinned = 0 ORDER BY version"
        )
        first = self._first_before(offered) if pinned is None else pinned.version + 1
        found: list[bytes] = []
        for version, roster in rows:
            if version == first + len(found):
                found.append(_bytes(roster))
        return found

    def _first_before(self, offered: MonitoringRoster) -> int:
        rows = self._database.rows(
            "SELECT roster FROM monitoring_rosters WHERE version < ? ORDER BY version DESC",
            offered.version,
        )
        first = offered
        for row in rows:
            before = read_roster(_bytes(row[0]))
            if before.digest != first.previous:
                break
            first = before
        return first.version

    def _keep(self, data: bytes, version: int) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO monitoring_rosters VALUES (?, ?, 0)",
                (version, sqlite3.Binary(data)),
            )

    def _forget(self, version: int) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM monitoring_rosters WHERE version = ? AND is_pinned = 0", (version,)
            )


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
