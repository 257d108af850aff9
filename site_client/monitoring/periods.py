"""Which reports of a study are due at a moment: the reference, then both reports of each period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.study.plan import StudyPlan
from common.study.report_periods import (
    Period,
    period_at,
    periods_over,
    report_due_s,
    report_late_s,
)
from common.study.report_tensors import ReportKind

KINDS_OF_PERIOD = (ReportKind.CASE_MIX, ReportKind.OUTCOME)


@dataclass(frozen=True)
class DueReport:
    """One report that a site can make.

    Args:
        kind: of the report.
        period: None for the reference.
        late_s: after when the board no longer takes it; None: never.
    """

    kind: ReportKind
    period: Period | None
    late_s: int | None


def due_reports(plan: StudyPlan, *, promoted_s: int, now_s: int) -> Iterator[DueReport]:
    """Yield what can be made now and is not late, the oldest period first.

    The first period is the one in which the model was promoted.
    """
    if plan.monitoring is None:
        return
    yield DueReport(ReportKind.REFERENCE, None, None)
    for period in periods_over(plan.monitoring.every, from_s=promoted_s, now_s=now_s):
        for kind in KINDS_OF_PERIOD:
            late_s = report_late_s(plan, kind, period)
            if report_due_s(plan, kind, period) <= now_s <= late_s:
                yield DueReport(kind, period, late_s)


def next_due_s(plan: StudyPlan, *, promoted_s: int, now_s: int) -> int | None:
    """Return when the next report can be made after now; None without monitoring."""
    if plan.monitoring is None:
        return None
    ends = period_at(now_s, plan.monitoring.every).end_s
    coming = [ends]
    period = period_at(promoted_s, plan.monitoring.every)
    while period.end_s <= ends:
        complete_s = report_due_s(plan, ReportKind.OUTCOME, period)
        if complete_s > now_s:
            coming.append(complete_s)
        period = period.following
    return min(coming)
