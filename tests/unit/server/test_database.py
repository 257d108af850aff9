"""The store: migrations give exactly the tables, and several processes may write at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.errors import StoreError
from common.ids import Digest, StudyId
from server.config import CoordinatorPaths, ServerConfig
from server.registry.actions import ModelActions
from server.storage.database import Database
from server.storage.tables import metadata
from tests.lib.memory_channel import CONFIG, SITE_IDS, copy_consortium, open_books_at

ROOT = Path(__file__).parents[3]


def test_the_migrations_give_exactly_the_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    database.migrate()
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    paths = copy_consortium(tmp_path)
    database, books = open_books_at(paths, FixedClock())
    database.migrate()
    assert [site.site_id for site in books.sites.all_sites()] == list(SITE_IDS)


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database, books = open_books_at(copy_consortium(tmp_path), FixedClock())
    with pytest.raises(KeyboardInterrupt), database.transaction() as connection:
        connection.execute(text("DELETE FROM sites"))
        raise KeyboardInterrupt
    assert len(books.sites.all_sites()) == len(SITE_IDS)


def test_a_store_without_tables_is_our_error_without_a_librarys_text(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(StoreError) as caught, database.transaction() as connection:
        connection.execute(text("SELECT * FROM sites"))
    assert caught.value.arrived == "OperationalError"


def test_every_commit_is_on_disk(tmp_path: Path) -> None:
    database, _ = open_books_at(copy_consortium(tmp_path), FixedClock())
    with database.transaction() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_the_url_of_the_config_is_used(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    config = CONFIG.model_copy(update={"database_url": elsewhere})
    assert isinstance(config, ServerConfig)
    assert Database.of(paths, config).url == elsewhere
    assert Database.of(paths, CONFIG).url == f"sqlite:///{paths.database}"


_WRITER = """
import sys
from pathlib import Path
from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.ids import Digest, SiteId, StudyId
from server.config import CoordinatorPaths
from server.registry.actions import ModelActions
from server.round_book import Outcome
from tests.lib.memory_channel import open_books_at

paths, me = CoordinatorPaths(Path(sys.argv[1])), sys.argv[2]
database, books = open_books_at(paths, FixedClock())
actions = ModelActions(database, FixedClock(), SigningKey.read(paths.signing_key))
site = SiteId({"a": "north", "b": "south"}[me])
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 31):
    books.rounds.record_refusal(StudyId("s"), number, site, Outcome.MISSING, me)
    books.sites.suspend(site)
    books.sites.readmit(site)
    actions.promote(Digest(f"{ord(me) * 1000 + number:064x}"), person=me, reason="r")
"""


def test_two_processes_that_write_at_once_both_succeed(tmp_path: Path) -> None:
    paths = copy_consortium(tmp_path)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(paths.home), name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    database, books = open_books_at(paths, FixedClock())
    assert len(books.rounds.answers(StudyId("s"))) == 60
    assert books.sites.roster().version == len(SITE_IDS) + 120
    log = ModelActions(database, FixedClock(), SigningKey.read(paths.signing_key)).log()
    assert [action.sequence for action in log] == list(range(1, 61))
    for name in ("a", "b"):
        assert [action.version for action in log if action.person == name] == [
            Digest(f"{ord(name) * 1000 + number:064x}") for number in range(1, 31)
        ]
