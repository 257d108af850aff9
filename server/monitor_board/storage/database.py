"""The board's database: one engine, short transactions, SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StoreError
from server.monitor_board.config import BoardConfig, BoardPaths
from server.storage.engine import open_engine, reading


class BoardDatabase:
    """Transactions over one database URL."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        if self._engine.dialect.name != "sqlite":
            # Two collectors on one database: the second to commit fails and tries again.
            self._engine = self._engine.execution_options(isolation_level="SERIALIZABLE")

    @classmethod
    def of(cls, paths: BoardPaths, config: BoardConfig) -> BoardDatabase:
        """Return the database of one board."""
        return cls(config.database_url or f"sqlite:///{paths.database}")

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        return self._engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection; commit at the end, roll back on error; raises `StoreError`."""
        with _our_error(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that only reads and keeps no writer waiting; raises `StoreError`."""
        with _our_error(), reading(self._engine) as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the database to this version's tables; raises `StoreError`."""
        # Imported here: only `init` and `collect` migrate, and Alembic loads slowly.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close the connections; the files are whole and may be copied."""
        self._engine.dispose()


@contextmanager
def _our_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(
            "the board's store does not answer",
            expected="a readable and writable database of this version",
            arrived=type(error).__name__,
            todo="check disk space and permissions, then run the command again",
        ) from error
