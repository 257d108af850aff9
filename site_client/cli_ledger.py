"""`cohortium-site ledger`: what was promised and spent, in tables and in words; export, verify."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common.command_line import print_json
from site_client.cli_context import Json, paths_of
from site_client.cli_records import open_site_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.privacy.ledger_entry import LedgerEntry
    from common.privacy.statements import TotalStatement
    from site_client.config import LimitsSection

app = typer.Typer(help="What this site has promised and spent on its patients.")


class By(StrEnum):
    """What a row of `ledger show` is about."""

    STUDY = "study"
    POPULATION = "population"
    PERIOD = "period"


ByOption = Annotated[By, typer.Option("--by", help="One row for each of these.")]


@app.callback(invoke_without_command=True)
def ledger(context: typer.Context, json: Json = False) -> None:
    """What this site has promised and spent on its patients; without a further word: show."""
    if context.invoked_subcommand is None:
        show(context, by=By.STUDY, json=json)


@app.command()
def show(context: typer.Context, by: ByOption = By.STUDY, json: Json = False) -> None:
    """Show what studies promised and spent, against the site's limits."""
    from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE

    entries, limits = _entries(context), _limits(context)
    total = _total(entries, limits)
    rows = _rows(entries, by, limits.delta_total)
    if json:
        name = {By.STUDY: "studies", By.POPULATION: "populations", By.PERIOD: "periods"}[by]
        print_json(
            {
                name: rows,
                "epsilon_total_committed": total.epsilon_committed,
                "epsilon_total_spent": total.epsilon_spent,
                "epsilon_total": limits.epsilon_total,
                "delta_total": limits.delta_total,
                "composition": limits.composition,
                "filter_order": total.filter_order,
                "filter_budget": total.filter_budget,
                "filter_committed": total.filter_committed,
                "entries": total.entries,
                "head": total.head,
            }
        )
        return
    Console().print(_table(rows, by))
    print(
        f"All studies together: epsilon {total.epsilon_committed:.4f} of "
        f"{limits.epsilon_total:g} at delta {limits.delta_total:g} is promised; "
        f"{total.epsilon_spent:.4f} is used so far."
    )
    if total.filter_order is not None:
        print(
            f"The limit is kept by a filter: {total.filter_committed:.4f} of "
            f"{total.filter_budget:.4f} at order {total.filter_order}."
        )
    if by is By.PERIOD:
        print("Periods compose: their epsilons neither add up to the total nor replace it.")
    print(UNIT_SENTENCE)
    print(NOT_COVERED_SENTENCE)


@app.command()
def explain(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="A study's id; without it, every study.")] = "",
    json: Json = False,
) -> None:
    """Say in plain words what was promised to patients, what was used, and what is not covered."""
    from common.errors import LedgerError
    from common.privacy.accounts import study_of_account
    from common.privacy.explanation import Limits
    from common.privacy.explanation import explain as explain_ledger
    from common.privacy.statements import by_study

    entries, limits = _entries(context), _limits(context)
    studies = by_study(entries, delta=limits.delta_total)
    chosen = [item for item in studies if study in ("", study_of_account(item.study_id))]
    if study and not chosen:
        raise LedgerError(
            "no such study in the ledger",
            expected=f"one of: {', '.join(item.study_id for item in studies) or 'none yet'}",
            arrived=study,
            todo="look at `cohortium-site ledger show`",
        )
    own = Limits(limits.epsilon_per_study, limits.epsilon_total, limits.epsilon_monitoring)
    paragraphs = explain_ledger(chosen, _total(entries, limits), own)
    if json:
        print_json(
            {
                "paragraphs": [asdict(item) for item in paragraphs],
                "studies": [asdict(item) for item in chosen],
            }
        )
        return
    console = Console()
    for item in paragraphs:
        console.print(f"{item.heading}\n", style="bold", markup=False, highlight=False, end="")
        console.print(f"{item.text}\n", markup=False, highlight=False)


@app.command()
def export(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where to write the signed file.")],
    json: Json = False,
) -> None:
    """Write the whole ledger into one signed file that anybody can verify without this site."""
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from common.ids import parse_site_id
    from common.privacy.spending_limits import Composition
    from common.protocol.ledger_export import LedgerExport, write_export
    from site_client.config import read_site_config

    paths = paths_of(context)
    records, config = open_site_records(context), read_site_config(paths)
    key, limits = SigningKey.read(paths.signing_key), config.limits
    exported = LedgerExport(
        site_id=parse_site_id(config.site.id),
        verify_key=key.verify_key,
        exported_at_s=SystemClock().now_s(),
        epsilon_per_study=limits.epsilon_per_study,
        epsilon_total=limits.epsilon_total,
        delta_total=limits.delta_total,
        composition=Composition(limits.composition),
        entries=records.ledger.entries(),
    )
    write_export(out, exported, records.ledger.entries_bytes()[: len(exported.entries)], key)
    if json:
        print_json({"file": str(out), "entries": len(exported.entries), "head": exported.head})
        return
    print(f"{len(exported.entries)} entries are in {out}, signed by the key {key.fingerprint}.")
    print("It holds no patient's data: studies, rounds, noise, times and digests.")


@app.command()
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported ledger of any site; without it, this site's own ledger."),
    ] = None,
    fingerprint: Annotated[
        str, typer.Option(help="Of the exporting site's key, as read on the telephone.")
    ] = "",
    json: Json = False,
) -> None:
    """Check the chain: this site's ledger against its release log, or an exported file."""
    from common.ids import parse_digest
    from common.protocol.ledger_export import read_export
    from common.protocol.ledger_words import print_verified

    if file is not None:
        print_verified(
            read_export(file, fingerprint=fingerprint), is_key_known=bool(fingerprint), json=json
        )
        return
    records = open_site_records(context)
    heads = {parse_digest(item.ledger_head) for item in records.log.verify()}
    records.ledger.verify(must_contain=heads)
    count = len(records.ledger.entries())
    if json:
        print_json({"ok": True, "entries": count, "head": records.ledger.head()})
    else:
        print(f"The ledger's {count} entries are an unbroken chain.")


def _entries(context: typer.Context) -> tuple[LedgerEntry, ...]:
    return open_site_records(context).ledger.entries()


def _limits(context: typer.Context) -> LimitsSection:
    from site_client.config import read_site_config

    return read_site_config(paths_of(context)).limits


def _total(entries: Sequence[LedgerEntry], limits: LimitsSection) -> TotalStatement:
    from common.privacy import statements
    from common.privacy.spending_limits import Composition

    return statements.total(
        entries,
        delta=limits.delta_total,
        epsilon_total=limits.epsilon_total,
        composition=Composition(limits.composition),
    )


def _rows(entries: Sequence[LedgerEntry], by: By, delta: float) -> list[dict[str, Any]]:
    from common.privacy import statements

    if by is By.STUDY:
        return [asdict(item) for item in statements.by_study(entries, delta=delta)]
    if by is By.POPULATION:
        return [asdict(item) for item in statements.by_population(entries, delta=delta)]
    return [asdict(item) for item in statements.by_period(entries, delta=delta)]


def _table(rows: list[dict[str, Any]], by: By) -> Table:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    if by is By.STUDY:
        table = Table("study", "promised", "committed", "spent", "delta", "releases")
        for row in rows:
            table.add_row(
                row["study_id"],
                number(row["epsilon_promised"]),
                number(row["epsilon_committed"]),
                number(row["epsilon_spent"]),
                f"{row['delta']:g}",
                str(row["releases"]),
            )
    elif by is By.POPULATION:
        table = Table("share of patients", "committed", "spent", "studies")
        for row in rows:
            table.add_row(
                f"{row['share']:.1%}",
                number(row["epsilon_committed"]),
                number(row["epsilon_spent"]),
                ", ".join(row["studies"]),
            )
    else:
        table = Table("period (UTC)", "spent within it", "releases")
        for row in rows:
            table.add_row(row["period"], number(row["epsilon_spent"]), str(row["releases"]))
    return table
