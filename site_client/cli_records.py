"""`cohortium-site releases`: what left, verified; and how a command opens the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from common.command_line import print_json, table_width
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from site_client.tasks import SiteRecords

releases_app = typer.Typer(help="What has left this site.")


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.add_typer(releases_app, name="releases")


@releases_app.callback(invoke_without_command=True)
def releases(context: typer.Context, json: Json = False) -> None:
    """What has left this site; without a further word: list."""
    if context.invoked_subcommand is None:
        list_releases(context, json=json)


@releases_app.command("list")
def list_releases(context: typer.Context, json: Json = False) -> None:
    """List every release, report and refusal."""
    from common.clock import utc_text
    from common.privacy.accounts import is_monitoring_account
    from common.study.contingency import SINGLE_ROUND

    records = open_site_records(context)
    entries = records.log.entries()
    if json:
        print_json([vars(item) for item in entries])
        return
    table = Table()
    for name in ("time", "what", "study", "round", "number", "bytes", "release"):
        table.add_column(name, overflow="fold")
    selecting = {
        item.study_id
        for item in records.approvals.all_approvals()
        if item.plan.selection is not None
    }
    for item in entries:
        what = item.what
        if what == "release" and item.study_id in selecting:
            of_what = "candidates" if item.round_number == SINGLE_ROUND else "pairs of candidates"
            what = f"release: counts of {of_what}"
        if item.what == "report":
            what = f"report: {item.kind} of {item.period}"
        table.add_row(
            utc_text(item.at_s),
            what,
            item.study_id,
            "" if is_monitoring_account(item.study_id) else str(item.round_number),
            item.number,
            f"{item.size_bytes:,}",
            item.release_id[:12],
        )
    Console(width=table_width()).print(table)


@releases_app.command("verify")
def verify_releases(context: typer.Context, json: Json = False) -> None:
    """Check the release log's chain and the kept payloads."""
    count = len(open_site_records(context).log.verify())
    if json:
        print_json({"ok": True, "entries": count})
    else:
        print(f"The release log's {count} entries are an unbroken chain.")


def open_site_records(context: typer.Context) -> SiteRecords:
    """Open ledger, release log and approvals; raises `KeyFileError` or `LedgerError`."""
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from site_client.open_site import open_records

    paths = paths_of(context)
    key = SigningKey.read(paths.signing_key).verify_key
    return open_records(paths, clock=SystemClock(), key=key)[0]
