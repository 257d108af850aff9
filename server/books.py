"""Everything the coordinator writes to, opened together."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import SystemClock
from server.config import CoordinatorPaths, ServerConfig
from server.registry.store import ModelRegistry
from server.round_book import RoundBook
from server.site_directory import SiteDirectory
from server.storage.database import Database
from server.study_register import StudyRegister


@dataclass(frozen=True)
class Books:
    """Everything the coordinator writes to."""

    register: StudyRegister
    rounds: RoundBook
    sites: SiteDirectory
    registry: ModelRegistry


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
