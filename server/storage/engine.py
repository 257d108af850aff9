"""How a store of ours is opened: SQLite durable and one writer at a time, or another database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event

_BUSY_WAIT_MS: Final = 30_000
_READS_ONLY: Final = "cohortium_reads_only"


def open_engine(url: str) -> Engine:
    """Return an engine; SQLite syncs each commit to disk and serialises transactions."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection that only reads and keeps no writer waiting."""
    with engine.connect() as connection:
        reader = connection.execution_options(**{_READS_ONLY: True})
        with reader.begin():
            yield reader


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Python's driver begins only at the first write
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_WAIT_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # What a transaction reads stays true until it commits: another process waits for its turn.
    is_reading = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")
