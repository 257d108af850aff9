"""A simulated coordinator's home: its books, in which the sites are enrolled without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, insert, select

from common.clock import Clock
from common.ids import SiteId
from server.books import Books
from server.config import CoordinatorPaths
from server.registry.store import ModelRegistry
from server.round_book import RoundBook
from server.site_directory import SiteDirectory
from server.storage.database import Database
from server.storage.tables import metadata
from server.storage.tables import sites as sites_table
from server.study_register import StudyRegister
from simulations.run_keys import RunKeys


@contextmanager
def open_home(home: Path, clock: Clock) -> Iterator[tuple[Database, Books]]:
    """Give a coordinator's books, made there the first time.

    What was committed survives a kill of the process, not a power cut.

    Args:
        home: of the coordinator.
        clock: of the simulation.
    """
    paths = CoordinatorPaths(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.models.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{paths.database}")
    event.listen(database.engine, "connect", _do_not_wait_for_disk)
    try:
        metadata.create_all(database.engine)
        rounds = RoundBook(database, paths, clock, waits_for_disk=False)
        yield (
            database,
            Books(
                register=StudyRegister(database, clock),
                rounds=rounds,
                sites=SiteDirectory(database, clock),
                registry=ModelRegistry(database, rounds, clock),
            ),
        )
    finally:
        database.engine.dispose()


def enrol_sites(
    database: Database, sites: Iterable[tuple[SiteId, int]], *, keys: RunKeys, clock: Clock
) -> None:
    """Enrol the sites of a run, without certificates, all at once; again changes nothing.

    Args:
        database: of the coordinator.
        sites: each with its declared number of patients.
        keys: of the run.
        clock: of the simulation.
    """
    with database.transaction() as connection:
        if connection.execute(select(sites_table.c.site_id).limit(1)).first() is not None:
            return
        connection.execute(
            insert(sites_table),
            [_row(site_id, declared, keys, clock.now_s()) for site_id, declared in sites],
        )


def _row(site_id: SiteId, declared_cohort_size: int, keys: RunKeys, now_s: int) -> dict[str, Any]:
    signing, opening = keys.site(site_id)
    return {
        "site_id": site_id,
        "organisation": f"Virtual site {site_id}",
        "contact": "",
        "verify_key": signing.verify_key.to_text(),
        "sealing_key": opening.sealing_key.to_text(),
        "node_public_key": f"none: {site_id}",
        "certificate": "",
        "is_active": True,
        "admitted_at_s": now_s,
        "cohort_size_max": declared_cohort_size,
    }


def _do_not_wait_for_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")
