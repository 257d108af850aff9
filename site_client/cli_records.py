"""`cohortium-site` ledger and releases: what was spent and what left, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from common.command_line import print_json
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from site_client.tasks import SiteRecords

ledger_app = typer.Typer(help="What this site has spent on its patients.")
releases_app = typer.Typer(help="What has left this site.")


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(releases_app, name="releases")


@ledger_app.callback(invoke_without_command=True)
def ledger(context: typer.Context, json: Json = False) -> None:
    """What this site has spent on its patients; without a further word: show."""
    if context.invoked_subcommand is None:
        show_ledger(context, json=json)


@releases_app.callback(invoke_without_command=True)
def releases(context: typer.Context, json: Json = False) -> None:
    """What has left this site; without a further word: list."""
    if context.invoked_subcommand is None:
        list_releases(context, json=json)


@ledger_app.command("show")
def show_ledger(context: typer.Context, json: Json = False) -> None:
    """Show what each study and all studies together have spent, against the site's limits."""
    from common.privacy.ledger_entry import ReservedEntry
    from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE
    from site_client.config import read_site_config

    records = _open(context)
    limits = read_site_config(paths_of(context)).limits
    entries = records.ledger.entries()
    studies = sorted({item.study_id for item in entries if isinstance(item, ReservedEntry)})
    deltas = {item.study_id: item.plan.privacy.delta for item in records.approvals.all_approvals()}
    rows = [
        {
            "study_id": study_id,
            "delta": deltas.get(study_id, limits.delta_total),
            "epsilon_spent": records.ledger.spent(
                study_id, deltas.get(study_id, limits.delta_total)
            ).epsilon,
            "releases": sum(
                isinstance(item, ReservedEntry) and item.study_id == study_id for item in entries
            ),
        }
        for study_id in studies
    ]
    total = records.ledger.spent_total(limits.delta_total).epsilon
    if json:
        print_json(
            {
                "studies": rows,
                "epsilon_total_spent": total,
                "epsilon_total": limits.epsilon_total,
                "delta_total": limits.delta_total,
                "entries": len(entries),
                "head": records.ledger.head(),
            }
        )
        return
    table = Table("study", "epsilon spent", "delta", "releases")
    for row in rows:
        table.add_row(
            str(row["study_id"]),
            f"{row['epsilon_spent']:.4f}",
            f"{row['delta']:g}",
            str(row["releases"]),
        )
    Console().print(table)
    print(
        f"All studies together: epsilon {total:.4f} of {limits.epsilon_total:g} "
        f"at delta {limits.delta_total:g}."
    )
    print(UNIT_SENTENCE)
    print(NOT_COVERED_SENTENCE)


@ledger_app.command("verify")
def verify_ledger(context: typer.Context, json: Json = False) -> None:
    """Check the ledger's chain, and that every head in the release log is in it."""
    from common.ids import parse_digest

    records = _open(context)
    heads = {parse_digest(item.ledger_head) for item in records.log.verify()}
    records.ledger.verify(must_contain=heads)
    count = len(records.ledger.entries())
    if json:
        print_json({"ok": True, "entries": count, "head": records.ledger.head()})
    else:
        print(f"The ledger's {count} entries are an unbroken chain.")


@releases_app.command("list")
def list_releases(context: typer.Context, json: Json = False) -> None:
    """List every release and every refusal."""
    from common.clock import utc_text

    entries = _open(context).log.entries()
    if json:
        print_json([vars(item) for item in entries])
        return
    table = Table()
    for name in ("time", "what", "study", "round", "number", "bytes", "release"):
        table.add_column(name, overflow="fold")
    for item in entries:
        table.add_row(
            utc_text(item.at_s),
            item.what,
            item.study_id,
            str(item.round_number),
            item.number,
            f"{item.size_bytes:,}",
            item.release_id[:12],
        )
    Console().print(table)


@releases_app.command("verify")
def verify_releases(context: typer.Context, json: Json = False) -> None:
    """Check the release log's chain and the kept payloads."""
    count = len(_open(context).log.verify())
    if json:
        print_json({"ok": True, "entries": count})
    else:
        print(f"The release log's {count} entries are an unbroken chain.")


def _open(context: typer.Context) -> SiteRecords:
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from site_client.open_site import open_records

    paths = paths_of(context)
    key = SigningKey.read(paths.signing_key).verify_key
    return open_records(paths, clock=SystemClock(), key=key)[0]
