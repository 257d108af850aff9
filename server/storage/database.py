"""The coordinator's database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path

from server.config import CoordinatorPaths, ServerConfig
from server.storage.engine import StoreDatabase, open_engine


class Database(StoreDatabase):
    """Transactions over one database URL."""

    migrations = Path(__file__).parent / "migrations"
    whose = "the coordinator's"
    todo = "`cohortium-coordinator up` again"

    def __init__(self, url: str) -> None:
        super().__init__(open_engine(url))
        self.url = url

    @classmethod
    def of(cls, paths: CoordinatorPaths, config: ServerConfig) -> Database:
        """Return the database of one coordinator."""
        return cls(config.database_url or f"sqlite:///{paths.database}")
