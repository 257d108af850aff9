"""The check key of secure sums that this site was given; a lower number never comes back."""

from __future__ import annotations

import sqlite3

from common.crypto.keys import OpeningKey, VerifyKey
from common.errors import CohortiumError
from common.protocol.monitoring.check_key import CheckKey, SealedCheckKey, open_check_key
from common.protocol.monitoring.notice_checks import verify_check_key
from common.protocol.monitoring.notice_codec import read_notice
from site_client.monitoring.outcomes import KNOWN, LATER, TAKEN, refused
from site_client.site_database import SiteDatabase


class CheckKeyPin:
    """Keeps the authority's notice, sealed as it came, and opens it when a report is split."""

    def __init__(self, database: SiteDatabase, opening_key: OpeningKey) -> None:
        self._database = database
        self._opening_key = opening_key

    def take(self, notice: bytes, authority: VerifyKey | None) -> str:
        """Keep a check key that the authority sealed to this site; return the outcome."""
        if authority is None:
            return LATER
        try:
            sealed = verify_check_key(notice, authority)
            open_check_key(sealed, key=self._opening_key)
        except CohortiumError as error:
            return refused(error)
        known = self._database.rows(
            "SELECT number FROM monitoring_check_keys WHERE number >= ?", sealed.number
        )
        if known:
            return KNOWN
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO monitoring_check_keys VALUES (?, ?)",
                (sealed.number, sqlite3.Binary(notice)),
            )
        return TAKEN

    def newest(self) -> CheckKey | None:
        """Return the newest check key, or None before one came; raises `LedgerError`."""
        rows = self._database.rows(
            "SELECT notice FROM monitoring_check_keys ORDER BY number DESC LIMIT 1"
        )
        if not rows or not isinstance(rows[0][0], bytes):
            return None
        sealed = read_notice(rows[0][0]).content
        if not isinstance(sealed, SealedCheckKey):
            return None
        return open_check_key(sealed, key=self._opening_key)
