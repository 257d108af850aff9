"""`cohortium-coordinator decisions`: what the monitor board decided, and what was done about it."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json, table_width
from server.cli_context import Json, open_config


def decisions(context: typer.Context, json: Json = False) -> None:
    """Verify the board's new decisions, act on each once, and list all with their outcome."""
    from common.clock import utc_text
    from server.board_decisions import acted_decisions
    from server.decision_watch import DecisionWatch
    from server.storage.database import Database

    paths, config = open_config(context)
    database = Database.of(paths, config)
    database.migrate()
    watch = DecisionWatch(paths, config, wait_s=30.0)
    watch.look()
    if watch.obstacle:
        typer.echo(f"Decisions wait: {watch.obstacle}.", err=True)
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
        for item in acted_decisions(database)
    ]
    if json:
        print_json(rows)
        return
    table = Table("at", "study", "number", "action", "signed by", "outcome", "detail")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console(width=table_width()).print(table)
