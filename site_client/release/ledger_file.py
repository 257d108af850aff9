"""The site's `LedgerStore`: one table of the site's SQLite file, durable before it returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from common.errors import LedgerError
from site_client.site_database import SiteDatabase


class SqliteLedgerStore:
    """Ledger entries in the site's file; the sequence is the primary key: no fork is possible."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def append(self, sequence: int, entry: bytes) -> None:
        """Write one entry, durable on return; raises `LedgerError` and writes nothing."""
        with self._database.transaction() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM ledger").fetchone()
            if count != sequence - 1:
                raise LedgerError(
                    "another entry was written at the same time",
                    expected=f"entry {count + 1}",
                    arrived=f"entry {sequence}",
                    todo="make sure that one agent runs on this folder",
                )
            connection.execute(
                "INSERT INTO ledger VALUES (?, ?)", (sequence, sqlite3.Binary(entry))
            )

    def read_all(self) -> Sequence[bytes]:
        """Return all entries in order of their sequence; raises `LedgerError`."""
        rows = self._database.rows("SELECT entry FROM ledger ORDER BY sequence")
        return tuple(bytes(row[0]) for row in rows if isinstance(row[0], bytes))
