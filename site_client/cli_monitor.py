"""`cohortium-site monitor`: reports about the promoted model: trust, report, run, status."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json, table_width
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.clock import Clock
    from common.ids import StudyId
    from site_client.config import SiteConfig
    from site_client.monitoring.mailbox import MonitoringMailbox
    from site_client.monitoring.report import MonitoredStudy, SiteMonitor
    from site_client.monitoring.report_preview import ReportPreview
    from site_client.open_site import OpenSite
    from site_client.release.report_release import ReportRequest

LOOK_EVERY_S: Final = 3600
"""How often a resident monitor looks whether a report is due."""

app = typer.Typer(
    help="Reports about the promoted model: whether patients and its performance change.",
    no_args_is_help=True,
)


class Kind(StrEnum):
    """Which report of a period."""

    REFERENCE = "reference"
    CASE_MIX = "case-mix"
    OUTCOME = "outcome"


class Every(StrEnum):
    """The length of a period."""

    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"


StudyArgument = Annotated[str, typer.Argument(help="The study's id.")]


@dataclass(frozen=True)
class _Opened:
    config: SiteConfig
    site: OpenSite
    clock: Clock
    monitor: SiteMonitor
    mailbox: MonitoringMailbox


@app.command()
def trust(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A roster that the consortium's authority signed, or its key.")
    ],
    fingerprint: Annotated[
        str, typer.Option(help="The authority's fingerprint, as read on the telephone.")
    ],
    json: Json = False,
) -> None:
    """Pin the key that says who receives this site's reports; once, and for good."""
    from site_client.monitoring.authority_file import read_authority

    opened = _open(context)
    authority, roster = read_authority(file, fingerprint=fingerprint)
    opened.mailbox.pin.trust(authority)
    outcome = "" if roster is None else opened.mailbox.deliver(roster)
    if json:
        print_json({"authority": authority.fingerprint, "roster": outcome})
        return
    print(f"The authority {authority.fingerprint} is pinned: it names who opens your reports.")
    if outcome:
        print(f"The roster in this file: {outcome}.")


@app.command()
def report(
    context: typer.Context,
    study: StudyArgument,
    period: Annotated[
        str, typer.Option(help="Such as 2026-02, or `reference`; without it, all that is due.")
    ] = "",
    kind: Annotated[
        Kind | None, typer.Option(help="Of the period: case-mix or outcome; default: both.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what would leave and what it costs, only.")
    ] = False,
    late: Annotated[
        bool, typer.Option("--late", help="Make it although the board no longer waits for it.")
    ] = False,
    json: Json = False,
) -> None:
    """Make reports through the gate; the courier carries them when their turn comes."""
    opened = _open(context)
    found = opened.monitor.study(_study_id(study))
    requests = _requests(opened, found, period, kind, is_late_allowed=late)
    if preview:
        _show_previews([_preview(opened, request) for request in requests], json=json)
        return
    made = _make(opened, requests)
    if json:
        print_json({"reports": made})
        return
    for item in made:
        print(f"{item['kind']} of {item['period']}: {item['outcome']}")
    if not made:
        print("Nothing is due now; `monitor status` says when.")


@app.command()
def run(
    context: typer.Context,
    study: StudyArgument,
    every: Annotated[
        Every, typer.Option(help="The plan's period; another one than the plan's is refused.")
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Make what is due and end, for cron or a timer.")
    ] = False,
) -> None:
    """Make each report when it is due, until Ctrl-C."""
    from common.errors import CohortiumError, ConfigError

    while True:
        try:
            _run_due(_open(context), _study_id(study), every)
        except CohortiumError as error:
            # A study that is paused, or has no model yet, may go on tomorrow.
            if once or isinstance(error, ConfigError):
                raise
            _say(str(error))
        if once:
            return
        time.sleep(LOOK_EVERY_S)


def _run_due(opened: _Opened, study_id: StudyId, every: Every) -> None:
    from common.errors import ConfigError

    try:
        found = opened.monitor.study(study_id)
        monitoring = found.plan.monitoring
        if monitoring is not None and monitoring.every != every.value:
            raise ConfigError(
                "the reports of this study have another period",
                expected=f"--every {monitoring.every}, as the approved plan says",
                arrived=f"--every {every.value}",
                todo="give the plan's period; a site reports no more often than it approved",
            )
        for item in _make(opened, opened.monitor.due(found)):
            _say(f"{item['kind']} of {item['period']}: {item['outcome']}")
    finally:
        opened.site.database.close()


@app.command()
def status(context: typer.Context, study: StudyArgument, json: Json = False) -> None:
    """Show reports, receipts, what is due, the board's decisions, and what is in the way."""
    from site_client.monitoring.report_status import monitoring_status

    opened = _open(context)
    study_id = _study_id(study)
    found = monitoring_status(
        study_id,
        monitor=opened.monitor,
        mailbox=opened.mailbox,
        log=opened.site.records.log,
        clock=opened.clock,
        is_paused=opened.site.records.approvals.is_paused(study_id),
        is_training_paused=opened.site.records.approvals.is_training_paused(study_id),
    )
    if json:
        print_json(asdict(found))
        return
    table = Table("report", "period", "state", "number", "held by")
    for item in found.reports:
        number = str(item.number or "")
        table.add_row(
            item.kind, item.period, item.state, number, escape(", ".join(item.confirmed_by))
        )
    Console(width=table_width()).print(table)
    print(f"Model: {found.model_version[:12] or 'none promoted'}; roster: {found.roster_version}.")
    if found.next_due:
        print(f"The next report can be made from {found.next_due} on.")
    for reason in found.blocked:
        print(f"In the way: {reason}.")
    _show_decisions(opened, asdict(found)["decisions"])
    if found.is_training_paused:
        what = "The study is" if found.is_paused else "Training, not monitoring, is"
        print(f"{what} paused here; `cohortium-site unpause STUDY` takes that back.")


def _show_decisions(opened: _Opened, decisions: list[dict[str, object]]) -> None:
    follows = opened.config.monitoring.follow_decisions
    for item in decisions:
        is_followed = item["is_about_this_site"] and not item["objection"]
        about = ", to be followed here" if is_followed else ""
        print(f"Decision {item['number']} ({item['period']}): {item['action']}{about}.")
        print(f"  {item['reason']}")
        if item["objection"]:
            print(f"  Not followed: {item['objection']}.")
    if any(item["is_about_this_site"] for item in decisions) and not follows:
        print("This site follows no decision by itself ([monitoring] follow_decisions = false).")


def _open(context: typer.Context) -> _Opened:
    from common.clock import SystemClock
    from site_client.config import read_site_config
    from site_client.open_monitoring import open_mailbox, open_monitor
    from site_client.open_site import open_site

    paths, clock = paths_of(context), SystemClock()
    config, site = read_site_config(paths), open_site(paths, clock=clock)
    return _Opened(
        config,
        site,
        clock,
        open_monitor(config, site, paths, clock),
        open_mailbox(config, site, clock),
    )


def _study_id(study: str) -> StudyId:
    from common.ids import parse_study_id

    return parse_study_id(study)


def _requests(
    opened: _Opened,
    study: MonitoredStudy,
    period: str,
    kind: Kind | None,
    *,
    is_late_allowed: bool,
) -> list[ReportRequest]:
    from common.study.report_periods import REFERENCE
    from common.study.report_tensors import ReportKind

    if not period:
        due = opened.monitor.due(study)
        return [item for item in due if kind is None or item.kind.value == kind.value]
    if period == REFERENCE:
        return [opened.monitor.asked(study, period, ReportKind.REFERENCE)]
    kinds = [Kind.CASE_MIX, Kind.OUTCOME] if kind is None else [kind]
    return [
        opened.monitor.asked(study, period, ReportKind(item.value), is_late_allowed=is_late_allowed)
        for item in kinds
    ]


def _make(opened: _Opened, requests: Sequence[ReportRequest]) -> list[dict[str, str]]:
    from common.errors import ReleaseRefused

    rows, made = opened.monitor.new_rows(), []
    for request in requests:
        try:
            opened.monitor.make(request, rows)
            outcome = "made; it leaves when its turn comes"
        except ReleaseRefused as error:
            outcome = f"withheld for good: {error.arrived}"
        made.append({"kind": request.kind.value, "period": request.label, "outcome": outcome})
    return made


def _preview(opened: _Opened, request: ReportRequest) -> ReportPreview:
    from common.study.report_periods import report_late_s
    from site_client.monitoring.report_preview import preview_report
    from site_client.release.site_limits import SiteLimits

    plan, period = request.plan, request.period
    is_made = opened.monitor.is_settled(request)
    table = None if is_made else opened.monitor.patients(request, opened.monitor.new_rows())
    return preview_report(
        request,
        patients=None if table is None else table.rows,
        limits=SiteLimits.of(opened.config.limits),
        roster=opened.mailbox.pin.roster(),
        is_charged=opened.monitor.is_charged(plan),
        is_made=is_made,
        is_withheld=opened.monitor.is_withheld(request),
        late_s=None if period is None else report_late_s(plan, request.kind, period),
    )


def _show_previews(previews: list[ReportPreview], *, json: bool) -> None:
    if json:
        print_json({"reports": [asdict(item) for item in previews]})
        return
    for item in previews:
        late = f", taken until {item.late_at}" if item.late_at else ""
        print(f"{item.kind} of {item.period}{late}")
        table = Table("table", "in plain words", "counts", "each off by about")
        for row in item.tables:
            table.add_row(escape(row.name), escape(row.what), str(row.counts), f"{row.noise:.0f}")
        Console(width=table_width()).print(table)
        for line in item.sentences():
            print(line)
    if not previews:
        print("Nothing is due now; `monitor status` says when.")


def _say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)
