"""`cohortium-coordinator decisions`: what the monitor board decided, and what was done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json, table_width
from server.cli_context import Json, open_config

if TYPE_CHECKING:
    from common.protocol.monitoring.roster import MonitoringRoster
    from server.board_decisions import BoardDecisions
    from server.config import CoordinatorPaths, ServerConfig
    from server.relay_store import RelayStore
    from server.storage.database import Database


def decisions(context: typer.Context, json: Json = False) -> None:
    """Verify the board's new decisions, act on each once, and list all with their outcome."""
    from common.clock import utc_text
    from common.protocol.monitoring.signed_notice import NoticeKind

    paths, config = open_config(context)
    database, store = _stores(paths, config)
    waiting = store.notices_of(NoticeKind.DECISION)
    board = _board(paths, config, database)
    if waiting:
        rosters = _pinned_rosters(store)
        for notice in waiting:
            board.act(notice, rosters)
    rows = [
        {
            "at": utc_text(item.at_s),
            "study": item.study_id,
            "number": item.number,
            "action": item.action,
            "signed by": item.signers,
            "outcome": item.outcome,
            "detail": item.detail,
        }
        for item in board.log()
    ]
    if json:
        print_json(rows)
        return
    table = Table("at", "study", "number", "action", "signed by", "outcome", "detail")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console(width=table_width()).print(table)


def _stores(paths: CoordinatorPaths, config: ServerConfig) -> tuple[Database, RelayStore]:
    from common.clock import SystemClock
    from server.relay_store import RelayStore
    from server.storage.database import Database

    database = Database.of(paths, config)
    database.migrate()
    return database, RelayStore(database, SystemClock())


def _board(paths: CoordinatorPaths, config: ServerConfig, database: Database) -> BoardDecisions:
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from server.board_decisions import BoardDecisions
    from server.books import open_books
    from server.cli_models import tell_sites
    from server.registry.actions import ModelActions

    clock = SystemClock()
    return BoardDecisions(
        database,
        open_books(paths, config),
        ModelActions(database, clock, SigningKey.read(paths.signing_key)),
        clock,
        tell_sites=lambda version: tell_sites(paths, config, version, is_silent=True),
    )


def _pinned_rosters(store: RelayStore) -> list[MonitoringRoster]:
    from common.protocol.monitoring.roster_file import read_roster

    return [read_roster(item.content) for item in reversed(store.rosters())]
