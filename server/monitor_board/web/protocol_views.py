"""From the board's books to the privacy, protocol and decisions pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from common.clock import utc_text
from common.errors import CohortiumError
from common.ids import StudyId
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Decision
from common.protocol.monitoring.refusals import BOARD_REFUSALS
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.signed_notice import SignedNotice, verify_signed
from common.study.report_periods import REFERENCE
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.signal_types import SiteSignals, State
from server.monitor_board.store import ChainEnd, Flagged, Gap, Refusal, Waiting
from server.monitor_board.web.views import (
    DecisionRow,
    PrivacyRow,
    ProtocolRow,
    ProtocolView,
    RefusalRow,
    RemarkRow,
    Signature,
)

_PERIODS_SHOWN: Final = 12
_FINGERPRINT_LETTERS: Final = 19


@dataclass(frozen=True)
class ProtocolRecords:
    """What the board's books say of all chains; `roster` is the newest, None before the first."""

    roster: MonitoringRoster | None
    chains: Sequence[ChainEnd]
    gaps: Sequence[Gap]
    waiting: Sequence[Waiting]
    refusals: Sequence[Refusal]
    flagged: Sequence[Flagged]


def privacy_rows(reports: Sequence[KeptReport]) -> tuple[PrivacyRow, ...]:
    """Return each site's account as its reports state it; one row a site."""
    by_site: dict[str, list[KeptReport]] = {}
    for report in reports:
        by_site.setdefault(report.site_id, []).append(report)
    rows = []
    for site_id, members in sorted(by_site.items()):
        ordered = sorted(members, key=lambda report: report.sequence)
        newest = ordered[-1]
        # A period has two reports; what counts is what was spent after the later one.
        after = {report.period: report.epsilon_spent for report in ordered}
        periods = tuple(sorted(after.items(), key=_by_time))[-_PERIODS_SHOWN:]
        rows.append(
            PrivacyRow(
                site_id, newest.epsilon_spent, newest.epsilon_remaining, newest.delta, periods
            )
        )
    return tuple(rows)


def protocol_view(
    study_id: StudyId,
    reports: Sequence[KeptReport],
    sites: Sequence[SiteSignals],
    records: ProtocolRecords,
    *,
    now_s: int,
) -> ProtocolView:
    """Return the chains of one study: what arrived, what is missing, what was refused."""
    roster = records.roster
    ends = {str(end.site_id): end for end in records.chains if end.study_id == study_id}
    missing = _numbers_by_site(
        [(gap.study_id, gap.site_id, gap.sequence) for gap in records.gaps], study_id
    )
    held = _numbers_by_site(
        [(x.study_id, x.site_id, x.sequence) for x in records.waiting], study_id
    )
    refused = [item for item in records.refusals if item.study_id == study_id]
    times_refused = Counter(item.site_id for item in refused)
    silent = {str(site.site_id) for site in sites if site.missing}
    standing = {str(site.site_id): site for site in roster.sites} if roster is not None else {}
    kept: dict[str, list[KeptReport]] = {}
    for report in reports:
        kept.setdefault(report.site_id, []).append(report)
    rows = []
    for site_id in sorted({*standing, *ends, *kept}):
        own, end = kept.get(site_id, []), ends.get(site_id)
        is_odd = bool(missing.get(site_id) or held.get(site_id) or times_refused[site_id])
        state = State.WATCH if is_odd else State.OK
        entry = standing.get(site_id)
        newest = max(own, key=lambda report: report.sequence, default=None)
        rows.append(
            ProtocolRow(
                site_id=site_id,
                state=State.SILENT if site_id in silent else state,
                roster_status=entry.status.value if entry is not None else "not in it",
                key_epoch=entry.key_epoch if entry is not None else None,
                reports=len(own),
                newest_sequence=end.sequence if end is not None else 0,
                newest_period=newest.period if newest is not None else "",
                age_s=now_s - end.received_at_s if end is not None else None,
                missing=_ranges(missing.get(site_id, [])),
                waiting=_ranges(held.get(site_id, [])),
                refusals=times_refused[site_id],
            )
        )
    return ProtocolView(
        tuple(rows),
        tuple(_refusal_row(item) for item in reversed(refused)),
        tuple(
            RemarkRow(item.site_id, item.sequence, item.check, item.words)
            for item in records.flagged
            if item.study_id == study_id
        ),
        roster.version if roster is not None else None,
        utc_text(roster.not_after_s) if roster is not None else "",
    )


def decision_rows(
    notices: Sequence[bytes],
    roster: MonitoringRoster | None,
    objections: Mapping[int, str] | None = None,
) -> tuple[DecisionRow, ...]:
    """Return decisions with the signatures that verify; one that is no decision is left out.

    Args:
        objections: by number, of decisions that were not valid any more when they came.
    """
    rows = []
    for data in notices:
        try:
            notice = read_notice(data)
        except CohortiumError:
            continue
        if isinstance(notice.content, Decision):
            row = _decision_row(notice.content, notice.signed, roster)
            rows.append(replace(row, objection=(objections or {}).get(row.number, "")))
    return tuple(sorted(rows, key=lambda row: row.number))


def _decision_row(
    decision: Decision, signed: SignedNotice, roster: MonitoringRoster | None
) -> DecisionRow:
    keys = {} if roster is None else {item.name: item.verify_key for item in roster.deciders}
    signatures = []
    for name in sorted(signed.signatures):
        key = keys.get(name)
        if key is None:
            continue
        try:
            verify_signed(signed, by=name, key=key)
        except CohortiumError:
            continue
        signatures.append(Signature(name, key.fingerprint[:_FINGERPRINT_LETTERS]))
    about = [
        f"site {decision.site_id}" if decision.site_id else "",
        f"model {decision.model_version[:12]}" if decision.model_version else "",
    ]
    return DecisionRow(
        number=decision.number,
        opened=utc_text(decision.opened_at_s),
        action=decision.action.value,
        about=", ".join(part for part in about if part) or "the study",
        period=decision.period,
        reason=decision.reason,
        signatures=tuple(signatures),
        needed=roster.decisions_required if roster is not None else 2,
    )


def _by_time(item: tuple[str, float]) -> tuple[bool, str]:
    return item[0] != REFERENCE, item[0]


def _refusal_row(item: Refusal) -> RefusalRow:
    meaning = BOARD_REFUSALS.get(item.number, "")
    words = f"{meaning}; expected {item.expected}; arrived {item.arrived}"
    return RefusalRow(utc_text(item.at_s), item.site_id, item.sequence, item.number, words)


def _numbers_by_site(
    found: Sequence[tuple[str, str, int]], study_id: StudyId
) -> Mapping[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for of_study, site_id, sequence in found:
        if of_study == study_id:
            numbers.setdefault(site_id, []).append(sequence)
    return numbers


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as "3, 7-9"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
