"""`cohortium-site check`: whether this site can take part, and how good its data are for a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.command_line import print_json, table_width
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from site_client.preflight import Preflight

PREFLIGHT_FAILED_EXIT_CODE = 1


def add_commands(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(check)


def check(
    context: typer.Context,
    plan: Annotated[Path | None, typer.Argument(help="A study plan to check against.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the data quality here as one page, exact, for your own eyes."),
    ] = None,
    shareable: Annotated[
        Path | None,
        typer.Option(help="Write the page that may leave: small counts hidden, others rounded."),
    ] = None,
    json: Json = False,
) -> None:
    """Check keys, clock, reachability, data and limits in plain words; exit 1 on a problem."""
    from common.clock import SystemClock
    from common.study.plan_file import read_plan
    from site_client.preflight import check_site
    from site_client.quality.page import page_of, write_page

    if plan is None and (html or shareable):
        message = "a page is about one plan: name it"
        raise typer.BadParameter(message)
    wanted = None if plan is None else read_plan(plan)
    result = check_site(paths_of(context), wanted, clock=SystemClock())
    pages: dict[str, str] = {}
    if result.quality is not None:
        if html is not None:
            write_page(html, page_of(result.quality.local()))
            pages["html"] = str(html)
        if shareable is not None:
            write_page(shareable, page_of(result.quality.shareable()))
            pages["shareable"] = str(shareable)
    if json:
        print_json(
            {
                "ok": result.is_ok,
                "findings": [finding.as_record() for finding in result.findings],
                "quality": None if result.quality is None else result.quality.as_record(),
                "pages": pages,
            }
        )
    else:
        _say(result, pages)
        if (html or shareable) and result.quality is None:
            print("No page was written: the data could not be read.")
    if not result.is_ok:
        raise typer.Exit(PREFLIGHT_FAILED_EXIT_CODE)


def _say(result: Preflight, pages: dict[str, str]) -> None:
    from site_client.quality.terminal import print_report

    for finding in result.findings:
        print(f"{'OK     ' if finding.is_ok else 'PROBLEM'} {finding.question}: {finding.answer}")
        if not finding.is_ok and finding.todo:
            print(f"        to do: {finding.todo}")
    if result.quality is not None:
        print_report(Console(width=table_width()), result.quality.local())
    for page in pages.values():
        print(f"Written: {page}")
    if "shareable" in pages:
        print("Nothing was sent. Read that page before you give it to anybody.")
