"""The coordinator's database: one engine, short transactions, several processes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StoreError
from server.config import CoordinatorPaths, ServerConfig
from server.storage.engine import open_engine, reading


class Database:
    """Transactions over one database URL; SQLite by default, PostgreSQL by URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_engine(url)

    @classmethod
    def of(cls, paths: CoordinatorPaths, config: ServerConfig) -> Database:
        """Return the database of one coordinator."""
        return cls(config.database_url or f"sqlite:///{paths.database}")

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for migrations."""
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
        # Imported here: only `init` and `up` migrate, and Alembic loads slowly.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


@contextmanager
def _our_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(
            "the coordinator's store does not answer",
            expected="a readable and writable database of this version",
            arrived=type(error).__name__,
            todo="check disk space and permissions, then run `cohortium-coordinator up` again",
        ) from error
