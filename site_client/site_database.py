"""The site's one SQLite file: every commit is on disk before it is believed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zlib import crc32

from common.errors import LedgerError

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS ledger (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS release_log (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS payloads (
  release_id TEXT PRIMARY KEY, study_id TEXT NOT NULL, round INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS replies (
  request_digest TEXT PRIMARY KEY, release_id TEXT NOT NULL, envelope BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS approvals (
  plan_digest TEXT PRIMARY KEY, record BLOB NOT NULL, signature BLOB NOT NULL,
  plan BLOB NOT NULL, is_withdrawn INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS failed_releases (release_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS source_pin (
  subject_id TEXT PRIMARY KEY, digest TEXT NOT NULL, salt_digest TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS feature_pins (plan_digest TEXT PRIMARY KEY, entry_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scaling_pin (plan_digest TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS paused (study_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS paused_training (study_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS monitoring_trust (
  place INTEGER PRIMARY KEY CHECK (place = 1), authority TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS monitoring_rosters (
  version INTEGER PRIMARY KEY, roster BLOB NOT NULL, is_pinned INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS monitoring_models (
  study_id TEXT PRIMARY KEY, notice BLOB NOT NULL, parameters BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS monitoring_envelopes (
  study_id TEXT NOT NULL, sequence INTEGER NOT NULL, release_id TEXT NOT NULL,
  envelope BLOB NOT NULL, PRIMARY KEY (study_id, sequence)
);
CREATE TABLE IF NOT EXISTS monitoring_replaced (
  study_id TEXT NOT NULL, sequence INTEGER NOT NULL, head TEXT NOT NULL, envelope BLOB NOT NULL,
  PRIMARY KEY (study_id, sequence, head)
);
CREATE TABLE IF NOT EXISTS monitoring_receipts (
  study_id TEXT NOT NULL, sequence INTEGER NOT NULL, board_id TEXT NOT NULL, head TEXT NOT NULL,
  notice BLOB NOT NULL, PRIMARY KEY (study_id, sequence, board_id, head)
);
CREATE TABLE IF NOT EXISTS monitoring_splits (
  release_id TEXT PRIMARY KEY, first BLOB NOT NULL, second BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS monitoring_check_keys (number INTEGER PRIMARY KEY, notice BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS monitoring_waiting (
  place INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE,
  notice BLOB NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS monitoring_decisions (
  study_id TEXT NOT NULL, number INTEGER NOT NULL, notice BLOB NOT NULL,
  PRIMARY KEY (study_id, number)
);
CREATE TABLE IF NOT EXISTS monitoring_objections (
  study_id TEXT NOT NULL, number INTEGER NOT NULL, words TEXT NOT NULL,
  PRIMARY KEY (study_id, number)
);
"""
_TABLES_VERSION: Final = crc32(_TABLES.encode()) & 0x7FFF_FFFF
"""Kept in the file, so that one with exactly these tables need not be asked for each of them."""
_BUSY_WAIT_S: Final = 10.0


class SiteDatabase:
    """Short transactions over the site's file; `synchronous=FULL`, so a commit is durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_WAIT_S, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version != _TABLES_VERSION:
                self._connection.executescript(_TABLES)
                self._connection.execute(f"PRAGMA user_version = {_TABLES_VERSION}")
        except (OSError, sqlite3.Error):
            raise self._refuse("opened") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction; raises `LedgerError` when it cannot end."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise self._refuse("written") from None

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return all rows of a query; raises `LedgerError`."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error:
                raise self._refuse("read") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _refuse(self, what: str) -> LedgerError:
        return LedgerError(
            f"the site's records cannot be {what}",
            expected=f"a readable and writable file {self._path} on a disk with free space",
            arrived="an error of the file system or of SQLite",
            todo="check space, permissions and the disk; nothing is released until then",
        )
