"""`cohortium-board signals`: what changed where, as a table or as JSON for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.clock import utc_text
from common.command_line import print_json, table_width
from server.monitor_board.cli_context import Json, open_store
from server.monitor_board.signal_words import missing_names

if TYPE_CHECKING:
    from server.monitor_board.signal_types import Signal, SiteSignals

_TOGETHER = "all sites together"


def signals(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="The study's id.")],
    every: Annotated[bool, typer.Option("--all", help="Signals that are OK as well.")] = False,
    json: Json = False,
) -> None:
    """Show what changed where, how surely and why; the page shows the same with its numbers."""
    found = _assessed(context, study)
    if json:
        print_json([_record(site, every=every) for site in found])
        return
    _print(found, every=every)


def _assessed(context: typer.Context, study: str) -> list[SiteSignals]:
    from common.clock import SystemClock
    from common.errors import StudyStateError
    from common.ids import parse_study_id
    from server.monitor_board.expected_sites import expected_sites
    from server.monitor_board.signals import assess

    store, study_id = open_store(context), parse_study_id(study)
    on_board = store.plans().get(study_id)
    if on_board is None:
        raise StudyStateError(
            f"the board does not watch {study_id}",
            expected="a study of `cohortium-board plan list`",
            arrived="another",
            todo="give the plan with `cohortium-board plan add`",
        )
    book = store.rosters() if store.newest_roster() is not None else None
    board = assess(
        on_board.plan,
        store.kept_reports(study_id),
        now_s=SystemClock().now_s(),
        expected=expected_sites(on_board, book),
    )
    return [*board.sites, *([board.pooled] if board.pooled is not None else [])]


def _shown(site: SiteSignals, *, every: bool) -> list[Signal]:
    from server.monitor_board.signal_types import State

    return [item for item in site.signals if every or item.state in (State.WATCH, State.ALERT)]


def _record(site: SiteSignals, *, every: bool) -> dict[str, Any]:
    return {
        "site": site.site_id,
        "state": site.state.value,
        "reasons": [reason.value for reason in site.reasons],
        "findings": [
            {
                "reason": item.reason.value,
                "is_certain": item.is_certain,
                "words": item.words,
                "may_conclude": item.may_conclude,
                "may_not_conclude": item.may_not_conclude,
            }
            for item in site.findings
        ],
        "signals": [
            {
                "metric": item.watch.metric.value,
                "subject": item.watch.subject,
                "period": item.period,
                "state": item.state.value,
                "estimate": item.estimate,
                "low": item.low,
                "high": item.high,
                "change": item.change,
                "p_value": item.p_value,
                "words": item.words,
            }
            for item in _shown(site, every=every)
        ],
        "missing": [
            {
                "kind": item.kind.value,
                "period": item.period,
                "late_since": utc_text(item.late_since_s),
            }
            for item in site.missing
        ],
    }


def _print(found: list[SiteSignals], *, every: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("site", "state", "reasons", "what")
    for site in found:
        lines = [item.words for item in _shown(site, every=every)]
        lines += [f"no {name}" for name in missing_names(site.missing)]
        reasons = ", ".join(reason.value for reason in site.reasons)
        name = site.site_id or _TOGETHER
        table.add_row(escape(name), site.state.value, reasons, escape("\n".join(lines)))
    Console(width=table_width()).print(table)
    for site in found:
        for item in site.findings:
            print(f"{site.site_id or _TOGETHER}: {item.words}")
            print(f"  You may conclude: {item.may_conclude}")
            print(f"  You may not conclude: {item.may_not_conclude}")
