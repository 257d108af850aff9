"""How a store of ours is opened and used: one engine, short transactions, several processes.

SQLite is durable and has one writer at a time; another database comes by its URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StoreError

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


class StoreDatabase:
    """Transactions over one database; a subclass says whose, and how an error is put right.

    Attributes:
        migrations: folder of Alembic's scripts.
        whose: of the store, in the words of an error.
        todo: what its reader can do.
    """

    migrations: ClassVar[Path]
    whose: ClassVar[str]
    todo: ClassVar[str]

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        return self._engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection; commit at the end, roll back on error; raises `StoreError`."""
        with self._our_error(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that only reads and keeps no writer waiting; raises `StoreError`."""
        with self._our_error(), reading(self._engine) as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the database to this version's tables; raises `StoreError`."""
        # Imported here: few commands migrate, and Alembic loads slowly.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(self.migrations))
        with self.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _our_error(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(
                f"{self.whose} store does not answer",
                expected="a readable and writable database of this version",
                arrived=type(error).__name__,
                todo=f"check disk space and permissions, then run {self.todo}",
            ) from error


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
