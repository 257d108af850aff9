"""The board's database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path

from server.monitor_board.config import BoardConfig, BoardPaths
from server.storage.engine import StoreDatabase, open_engine


class BoardDatabase(StoreDatabase):
    """Transactions over one database URL."""

    migrations = Path(__file__).parent / "migrations"
    whose = "the board's"
    todo = "the command again"

    def __init__(self, url: str) -> None:
        engine = open_engine(url)
        if engine.dialect.name != "sqlite":
            # Two collectors on one database: the second to commit fails and tries again.
            engine = engine.execution_options(isolation_level="SERIALIZABLE")
        super().__init__(engine)

    @classmethod
    def of(cls, paths: BoardPaths, config: BoardConfig) -> BoardDatabase:
        """Return the database of one board."""
        return cls(config.database_url or f"sqlite:///{paths.database}")

    def close(self) -> None:
        """Close the connections; the files are whole and may be copied."""
        self._engine.dispose()
