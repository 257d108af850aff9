"""The board's store over SQLite and PostgreSQL: the same answers, by few queries."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import event, text

from common.errors import StoreError
from common.ids import SiteId
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.storage.tables import metadata
from tests.lib.board_world import STUDY, make_board, make_world, utc_s
from tests.lib.postgresql import postgresql_server

NORTH = SiteId("north")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: str = request.getfixturevalue("server")
    name = f"board_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.replace("postgresql://", "postgresql+psycopg://").replace(
        "/postgres?", f"/{name}?"
    )


def test_the_migrations_give_exactly_the_tables(url: str) -> None:
    database = BoardDatabase(url)
    database.migrate()
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_reports_gaps_and_refusals_are_the_same_in_both(url: str, tmp_path: Path) -> None:
    world = make_world()
    board = make_board(world, tmp_path, url=url)
    first, second, third = (
        world.report(NORTH, period=period) for period in ("2025-12", "2026-01", "2026-02")
    )
    assert board.take(third) == [("waits", "B9")]
    assert board.take(first, first, at_s=utc_s(2026, 1, 3)) == [("used", ""), ("refused", "B7")]
    assert [gap.sequence for gap in board.store.gaps()] == [2]
    assert board.take(second, at_s=utc_s(2026, 2, 3)) == [("used", "")]
    kept = board.store.kept_reports(STUDY)
    assert [item.sequence for item in kept] == [1, 2, 3]
    assert all(item.tensors["scores"].values.shape == (10,) for item in kept)
    assert [item.number for item in board.store.refusals()] == ["B7"]
    assert board.store.position(f"reports/{STUDY}") == 4
    board.database.close()


def test_a_years_reports_are_loaded_by_as_many_queries_as_one(tmp_path: Path) -> None:
    world = make_world()
    board = make_board(world, tmp_path)
    asked: list[str] = []
    event.listen(
        board.database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: asked.append(statement),
    )

    def load() -> tuple[int, int]:
        asked.clear()
        return len(board.store.kept_reports(STUDY)), len(asked)

    board.take(world.report(NORTH))
    _, queries = load()
    board.take(
        world.report(SiteId("south")),
        world.report(SiteId("south"), kind="reference", period="reference"),
    )
    assert load() == (3, queries)


def test_every_commit_is_on_disk_and_a_store_without_tables_is_our_error(tmp_path: Path) -> None:
    database = BoardDatabase(f"sqlite:///{tmp_path / 'empty.db'}")
    with database.transaction() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    with pytest.raises(StoreError) as caught, database.reading() as connection:
        connection.execute(text("SELECT * FROM reports"))
    assert caught.value.arrived == "OperationalError"
    database.close()
