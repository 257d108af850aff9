"""Where a study's monitoring stands at this site, for `monitor status`."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock, utc_text
from common.errors import CohortiumError
from common.ids import StudyId
from common.privacy.accounts import monitoring_account, study_of_account
from common.study.report_periods import Every
from site_client.monitoring.mailbox import MonitoringMailbox
from site_client.monitoring.outbox import SealedReport
from site_client.monitoring.periods import next_due_s
from site_client.monitoring.report import MonitoredStudy, SiteMonitor
from site_client.release.release_log import ReleaseLog
from site_client.release.report_release import words_of_number


@dataclass(frozen=True)
class ReportLine:
    """One report.

    Args:
        kind, period: which one.
        state: in words.
        number: in the chain; 0 before it is sealed.
        confirmed_by: boards that hold it.
    """

    kind: str
    period: str
    state: str
    number: int
    confirmed_by: tuple[str, ...]


@dataclass(frozen=True)
class DecisionLine:
    """One decision of the board.

    Args:
        is_about_this_site: whether it is to stop the study here, or to pause its training.
        objection: why it is shown only and never followed; empty when it is valid.
    """

    number: int
    action: str
    reason: str
    period: str
    opened: str
    is_about_this_site: bool
    objection: str = ""


@dataclass(frozen=True)
class MonitoringStatus:
    """One study.

    Args:
        authority: fingerprint of the key that signs rosters; empty before `monitor trust`.
        roster_version: of the pinned roster; 0 before the first.
        model_version: promoted; empty before the first promotion.
        blocked: why no report can be made or leaves, in words; empty when nothing is in the way.
        is_paused: here, by hospital IT or a decision to stop: no training and no report.
        is_training_paused: so, or the board paused this site: reports go on.
        reports: made ones, oldest first, then what can be made now.
        next_due: when the next one can be made.
        decisions: the first one first.
    """

    study: str
    authority: str
    roster_version: int
    model_version: str
    blocked: tuple[str, ...]
    is_paused: bool
    is_training_paused: bool
    reports: tuple[ReportLine, ...]
    next_due: str
    decisions: tuple[DecisionLine, ...]


def monitoring_status(
    study_id: StudyId,
    *,
    monitor: SiteMonitor,
    mailbox: MonitoringMailbox,
    log: ReleaseLog,
    clock: Clock,
    is_paused: bool,
    is_training_paused: bool,
) -> MonitoringStatus:
    """Return where a study's monitoring stands; raises `LedgerError` for damaged records."""
    study, blocked = _study(study_id, monitor)
    reason = _why_nothing_leaves(study_id, mailbox)
    authority, roster = mailbox.pin.authority(), mailbox.pin.roster()
    objections = mailbox.decisions.objections(study_id)
    due = [] if study is None else monitor.due(study)
    coming = [ReportLine(item.kind.value, item.label, "can be made now", 0, ()) for item in due]
    return MonitoringStatus(
        study=study_id,
        authority="" if authority is None else authority.fingerprint,
        roster_version=0 if roster is None else roster.version,
        model_version="" if study is None else study.model.promotion.model_version,
        blocked=tuple(dict.fromkeys(item for item in (*blocked, *reason) if item)),
        is_paused=is_paused,
        is_training_paused=is_training_paused,
        reports=(*_made(study_id, mailbox, log), *_withheld(study_id, study, log), *coming),
        next_due="" if study is None else _next_due(study, clock),
        decisions=tuple(
            DecisionLine(
                number=item.number,
                action=item.action.value,
                reason=item.reason,
                period=item.period,
                opened=utc_text(item.opened_at_s),
                is_about_this_site=mailbox.decisions.stops(item),
                objection=objections.get(item.number, ""),
            )
            for item in mailbox.decisions.decisions(study_id)
        ),
    )


def _study(
    study_id: StudyId, monitor: SiteMonitor
) -> tuple[MonitoredStudy | None, tuple[str, ...]]:
    try:
        return monitor.study(study_id), ()
    except CohortiumError as error:
        return None, (error.refused,)


def _why_nothing_leaves(study_id: StudyId, mailbox: MonitoringMailbox) -> tuple[str, ...]:
    try:
        mailbox.check_leaving(study_id)
    except CohortiumError as error:
        return (error.refused,)
    return ()


def _made(study_id: StudyId, mailbox: MonitoringMailbox, log: ReleaseLog) -> tuple[ReportLine, ...]:
    sealed = {item.release_id: item for item in mailbox.chain.sealed(study_id)}
    receipts = mailbox.chain.receipts(study_id)
    lines = []
    for report in log.reports():
        if study_of_account(report.account) != study_id:
            continue
        item: SealedReport | None = sealed.get(report.release_id)
        number = 0 if item is None else item.header.sequence
        boards = tuple(
            receipt.board_id
            for receipt in receipts
            if item is not None
            and (receipt.sequence, receipt.head) == (item.state.sequence, item.state.head)
        )
        state = "made, waits for its turn" if item is None else "on its way"
        lines.append(
            ReportLine(
                report.kind.value,
                report.period,
                "received by the board" if boards else state,
                number,
                boards,
            )
        )
    return tuple(lines)


def _withheld(
    study_id: StudyId, study: MonitoredStudy | None, log: ReleaseLog
) -> tuple[ReportLine, ...]:
    every: Every = "month"
    if study is not None and study.plan.monitoring is not None:
        every = study.plan.monitoring.every
    lines = []
    for entry in log.entries():
        if entry.what == "refusal" and entry.study_id == monitoring_account(study_id):
            kind, _, period = words_of_number(entry.round_number, every).partition(" of ")
            why = entry.number or "a fault"
            lines.append(ReportLine(kind, period or kind, f"withheld for good: {why}", 0, ()))
    return tuple(lines)


def _next_due(study: MonitoredStudy, clock: Clock) -> str:
    due_s = next_due_s(study.plan, promoted_s=study.model.promotion.at_s, now_s=clock.now_s())
    return "" if due_s is None else utc_text(due_s)
