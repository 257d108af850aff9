"""`cohortium-site` approve, withdraw, pause, unpause and preview: deciding about a study."""

from __future__ import annotations

import contextlib
import datetime
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from site_client.approvals import Approvals

PlanArgument = Annotated[Path, typer.Argument(help="A study plan, TOML.")]
StudyArgument = Annotated[str, typer.Argument(help="The study's id.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    for command in (approve, withdraw, pause, unpause, preview):
        app.command()(command)


def approve(
    context: typer.Context,
    plan: PlanArgument,
    person: Annotated[str, typer.Option("--as", help="Who approves: a person's name.")],
    until: Annotated[str, typer.Option(help="Last day of the approval, YYYY-MM-DD.")],
    json: Json = False,
) -> None:
    """Approve exactly this plan until a date, signed with the site's key."""
    from common.clock import SystemClock, utc_text
    from common.crypto.keys import SigningKey
    from common.errors import ApprovalError
    from common.study.plan_file import read_plan
    from site_client.open_site import open_records

    try:
        day = datetime.date.fromisoformat(until)
    except ValueError:
        raise ApprovalError(
            "the approval's last day is refused",
            expected="a date as YYYY-MM-DD",
            arrived=repr(until[:40]),
            todo="give for example --until 2027-12-31",
        ) from None
    end = datetime.datetime.combine(day, datetime.time.max, tzinfo=datetime.UTC)
    paths = paths_of(context)
    key = SigningKey.read(paths.signing_key)
    records, _ = open_records(paths, clock=SystemClock(), key=key.verify_key)
    approval = records.approvals.approve(
        read_plan(plan), person=person, until_s=int(end.timestamp()), signing_key=key
    )
    if json:
        print_json(
            {
                "study_id": approval.study_id,
                "plan_digest": approval.plan_digest,
                "person": approval.person,
                "until": utc_text(approval.until_s),
            }
        )
        return
    print(f"{approval.person} approves {approval.study_id} until {until}; exactly this plan:")
    print(f"  {approval.plan_digest}")


def withdraw(context: typer.Context, study: StudyArgument) -> None:
    """Withdraw the approval of a study; its next request is refused with R7."""
    from common.ids import parse_study_id

    count = _open_approvals(context).withdraw(parse_study_id(study))
    print(f"{count} approval(s) of {study} withdrawn.")


def pause(context: typer.Context, study: StudyArgument) -> None:
    """Refuse a study's requests with R17 until `unpause`."""
    from common.ids import parse_study_id

    _open_approvals(context).pause(parse_study_id(study))
    print(f"{study} is paused at this site.")


def unpause(context: typer.Context, study: StudyArgument) -> None:
    """Answer a study's requests again."""
    from common.ids import parse_study_id

    _open_approvals(context).unpause(parse_study_id(study))
    print(f"{study} goes on at this site.")


def preview(context: typer.Context, plan: PlanArgument, json: Json = False) -> None:
    """Show exactly what would leave in a round, with sizes; nothing is charged or sent."""
    from common.clock import SystemClock
    from common.study.plan_file import read_plan
    from site_client.config import read_site_config
    from site_client.open_site import open_site
    from site_client.preview import preview_round
    from site_client.training.dp_sgd_engine import DpSgdEngine

    paths = paths_of(context)
    wanted, config = read_plan(plan), read_site_config(paths)
    site = open_site(paths, clock=SystemClock())
    with _silent_agent(), tempfile.TemporaryDirectory(dir=paths.state) as scratch:
        result = preview_round(
            wanted,
            config=config,
            folder=paths.home,
            site=site,
            engine=DpSgdEngine(),
            clock=SystemClock(),
            scratch=Path(scratch),
        )
    if json:
        print_json(
            {
                "envelope_bytes": result.envelope_bytes,
                "rounds": result.rounds,
                "evaluation_rounds": list(result.evaluation_rounds),
                "fields": [vars(item) for item in result.fields],
                "scaling": None if result.scaling is None else vars(result.scaling),
            }
        )
        return
    table = Table("what leaves", "in plain words", "bytes")
    once = () if result.scaling is None else (result.scaling,)
    for item in (*once, *result.fields):
        table.add_row(escape(item.name), escape(item.what), f"{item.size_bytes:,}")
    Console().print(table)
    print(
        f"Sealed to the coordinator and signed: {result.envelope_bytes:,} bytes. {result.when} "
        "A refusal sends its number only."
    )
    if wanted.monitoring is not None:
        from site_client.release.report_release import monitoring_commitment

        print(
            f"After training it reports about the promoted model, each {wanted.monitoring.every}, "
            f"{wanted.monitoring.periods_max} times at most: all reports together epsilon "
            f"{monitoring_commitment(wanted).epsilon:.4f} of your "
            f"{config.limits.epsilon_monitoring:g}, on an account of their own. Your approval "
            "covers them; `monitor report STUDY --preview` shows each."
        )


@contextlib.contextmanager
def _silent_agent() -> Iterator[None]:
    # What an agent would log is said once, by the error or the answer that the person gets.
    logger = logging.getLogger("cohortium.agent")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _open_approvals(context: typer.Context) -> Approvals:
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from site_client.open_site import open_records

    paths = paths_of(context)
    key = SigningKey.read(paths.signing_key).verify_key
    return open_records(paths, clock=SystemClock(), key=key)[0].approvals
