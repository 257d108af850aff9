"""Notices that cannot be judged yet: the courier brings each once, so they wait at the agent.

Without a trusted authority a roster proves nothing, and a promotion of a study that nobody approved
here is of no use yet. What waits is bounded: the oldest goes first.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from common.canonical import digest_bytes
from site_client.site_database import SiteDatabase

WAITING_MAX: Final = 256
WAITING_BODIES_MAX: Final = 4
"""Parameters of promoted models, up to 200 MiB each."""


class WaitingNotices:
    """What waits at one site, in order of arrival."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def keep(self, notice: bytes, body: bytes) -> None:
        """Keep a notice, durable on return; raises `LedgerError`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO monitoring_waiting (digest, notice, body) VALUES (?, ?, ?)",
                (_digest(notice), sqlite3.Binary(notice), sqlite3.Binary(body)),
            )
            for condition, most in (("1", WAITING_MAX), ("length(body) > 0", WAITING_BODIES_MAX)):
                connection.execute(
                    f"DELETE FROM monitoring_waiting WHERE {condition} AND place NOT IN "  # noqa: S608
                    f"(SELECT place FROM monitoring_waiting WHERE {condition} "
                    "ORDER BY place DESC LIMIT ?)",
                    (most,),
                )

    def notices(self) -> tuple[bytes, ...]:
        """Return what waits without bodies, the oldest first."""
        rows = self._database.rows("SELECT notice FROM monitoring_waiting ORDER BY place")
        return tuple(row[0] for row in rows if isinstance(row[0], bytes))

    def body(self, notice: bytes) -> bytes:
        """Return what came beside a notice."""
        rows = self._database.rows(
            "SELECT body FROM monitoring_waiting WHERE digest = ?", _digest(notice)
        )
        return rows[0][0] if rows and isinstance(rows[0][0], bytes) else b""

    def forget(self, notice: bytes) -> None:
        """Let a notice go."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM monitoring_waiting WHERE digest = ?", (_digest(notice),)
            )


def _digest(notice: bytes) -> str:
    return digest_bytes("waiting-notice", notice)
