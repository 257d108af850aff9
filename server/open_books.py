"""Open everything that the coordinator writes to."""

from __future__ import annotations

from common.clock import SystemClock
from server.config import CoordinatorPaths, ServerConfig
from server.coordinator import Books
from server.registry.store import ModelRegistry
from server.round_book import RoundBook
from server.site_directory import SiteDirectory
from server.storage.database import Database
from server.study_register import StudyRegister


def open_books(paths: CoordinatorPaths, config: ServerConfig) -> Books:
    """Return the books of one coordinator over its database."""
    clock = SystemClock()
    database = Database.of(paths, config)
    rounds = RoundBook(database, paths, clock)
    return Books(
        register=StudyRegister(database, clock),
        rounds=rounds,
        sites=SiteDirectory(database, clock),
        registry=ModelRegistry(database, rounds, clock),
    )
