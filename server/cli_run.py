"""`cohortium-coordinator` up, launch, status, watch, stop and resume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.command_line import print_json
from common.ids import StudyId, parse_study_id
from server.cli_context import Json, open_config

if TYPE_CHECKING:
    from server.study_report import StudyReport

RENEW_DAYS = 60
StudyArgument = Annotated[str, typer.Argument(help="The study's id.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    for command in (up, launch, status, watch, stop, resume):
        app.command()(command)


def up(context: typer.Context) -> None:
    """Run the SuperLink, the SuperExec and the relay, keep studies going; Ctrl-C stops."""
    from server.books import open_books
    from server.consortium import server_certificate_ends_at_s
    from server.storage.database import Database
    from server.supervisor import Supervisor, check_free_port

    paths, config = open_config(context)
    check_free_port(config.listen_host, config.port)
    check_free_port("127.0.0.1", config.operator_port)
    if config.relay is not None:
        check_free_port(config.listen_host, config.relay.port)
    Database.of(paths, config).migrate()
    days = (server_certificate_ends_at_s(paths) - int(time.time())) // 86_400
    if days < RENEW_DAYS:
        print(f"The server's certificate ends in {days} days: run `cohortium-coordinator renew`.")
    if config.relay is not None:
        print(f"Monitoring reports come to {config.relay_address}.")
    print(f"Sites connect to {config.address}; stop with Ctrl-C.", flush=True)
    Supervisor(paths, config, open_books(paths, config), say=_say).run()


def launch(
    context: typer.Context,
    plan: Annotated[Path, typer.Argument(help="A study plan, TOML.")],
    json: Json = False,
) -> None:
    """Sign a study plan, register it and start its rounds."""
    from common.crypto.keys import SigningKey
    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from server.books import open_books
    from server.registry.first_model import first_model

    paths, config = open_config(context)
    checked = read_plan(plan)
    check_trains(checked)
    books = open_books(paths, config)
    first_model(checked, registry=books.registry, rounds=books.rounds)
    study = books.register.register(checked, SigningKey.read(paths.signing_key))
    start_study(context, study.study_id)
    if json:
        print_json({"study_id": study.study_id, "digest": study.plan_digest})
        return
    active, quorum = len(books.sites.active_sites()), checked.training.quorum
    if active < quorum:
        print(f"Only {active} sites are active and a round needs {quorum}: admit the others now.")
    print(f"{study.study_id} is running; its plan's digest is\n  {study.plan_digest}")
    print(f"Next: `cohortium-coordinator watch {study.study_id}`")


def resume(context: typer.Context, study: StudyArgument) -> None:
    """Go on with a stopped or failed study from its last complete round."""
    start_study(context, parse_study_id(study))
    print(f"{study} goes on from its last complete round.")


def stop(context: typer.Context, study: StudyArgument) -> None:
    """Stop a study after what sites are doing now; `resume` goes on."""
    from common.protocol.round_states import StudyState
    from server.books import open_books

    paths, config = open_config(context)
    books = open_books(paths, config)
    found = books.register.find(parse_study_id(study))
    books.register.change_state(found.study_id, StudyState.STOPPED, reason="stopped by a person")
    print(f"{study} is stopped; `cohortium-coordinator resume {study}` goes on.")


def status(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help="A study's id; all studies without.")] = None,
    json: Json = False,
) -> None:
    """Show where studies are, and each site's part, privacy and performance."""
    from server.board_decisions import open_requests
    from server.books import open_books
    from server.storage.database import Database
    from server.study_report import report_study

    paths, config = open_config(context)
    books = open_books(paths, config)
    ids = (
        [item.study_id for item in books.register.all_studies()]
        if study is None
        else [parse_study_id(study)]
    )
    reports = [report_study(books, study_id) for study_id in ids]
    database = Database.of(paths, config)
    requests = {study_id: open_requests(database, study_id) for study_id in ids}
    if json:
        records = [
            {
                **report.as_record(),
                "board_requests": [item.action for item in requests[study_id]],
            }
            for study_id, report in zip(ids, reports, strict=True)
        ]
        print_json(records if study is None else records[0])
        return
    for study_id, report in zip(ids, reports, strict=True):
        Console().print(_render(report))
        for item in requests[study_id]:
            note = f" ({item.detail})" if item.outcome == "open" else ""
            print(
                f"The board asks to {item.action}, decision {item.number} by {item.signers}{note}."
            )
    if not reports:
        print("No study yet; launch a plan with `cohortium-coordinator launch PLAN`.")


def watch(context: typer.Context, study: StudyArgument) -> None:
    """Watch a study live until it ends; Ctrl-C leaves it running."""
    from server.books import open_books
    from server.study_report import report_study

    paths, config = open_config(context)
    books = open_books(paths, config)
    study_id = parse_study_id(study)
    with Live(_render(report_study(books, study_id)), refresh_per_second=4) as live:
        while True:
            report = report_study(books, study_id)
            live.update(_render(report))
            if report.state not in ("running", "registered"):
                return
            time.sleep(0.5)


def start_study(context: typer.Context, study_id: StudyId) -> None:
    """Start a registered, stopped or failed study; raises `StudyStateError` for another."""
    from common.errors import StudyStateError
    from common.protocol.round_states import StudyState, check_study_change
    from server.books import open_books
    from server.flower_control import FlowerControl

    paths, config = open_config(context)
    books = open_books(paths, config)
    study = books.register.find(study_id)
    if study.state is StudyState.RUNNING:
        raise StudyStateError(
            f"{study_id} is running already",
            expected="a study that is not running",
            arrived="a running one",
            todo=f"look at `cohortium-coordinator watch {study_id}`",
        )
    check_study_change(study.state, StudyState.RUNNING)
    control = FlowerControl(paths, config)
    try:
        # A run that was stopped may still be winding down; it must not write beside the new one.
        if study.flower_run_id:
            control.stop_run(study.flower_run_id)
        run_id = control.start_run(study_id)
    finally:
        control.close()
    books.register.start_run(study_id, run_id, restarts=0)


def _render(report: StudyReport) -> Group:
    head = Text.assemble(
        (report.study_id, "bold"), f"  {report.title}\n", (f"{report.state} {report.reason}")
    )
    bar = ProgressBar(total=report.rounds_planned, completed=report.rounds_complete, width=40)
    line = Text(f"{report.rounds_complete} of {report.rounds_planned} rounds complete")
    table = Table()
    for name in ("site", "patients", "AUROC (95 %)", "ε spent", "ε left", "rounds", "last answer"):
        table.add_column(name, overflow="fold")  # never cut off what the reader needs
    for site in report.sites:
        auroc = "insufficient data"
        if site.auroc is not None:
            auroc = f"{site.auroc.value:.3f} ({site.auroc.low:.2f}–{site.auroc.high:.2f})"
        table.add_row(
            escape(site.site_id),
            escape(site.patients),
            auroc,
            "" if site.epsilon_spent is None else f"{site.epsilon_spent:.3f}",
            "" if site.epsilon_remaining is None else f"{site.epsilon_remaining:.3f}",
            str(site.rounds),
            escape(site.last_outcome),
        )
    parts: list[Text | ProgressBar | Table] = [head, bar, line, table]
    if report.pooled is not None:
        pooled = report.pooled
        parts.append(
            Text(
                f"all sites: AUROC {pooled.value:.3f} ({pooled.low:.2f}–{pooled.high:.2f}) "
                f"on {report.evaluated_by} patients"
            )
        )
    return Group(*parts)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
