"""What a plan's monitoring reports may cost a patient in privacy, before the first is made."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass

from common.privacy.accountant import epsilon_of, epsilon_of_counted
from common.privacy.mechanism import MechanismRecord
from common.privacy.patient_parts import patient_parts
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, report_mechanisms

_OF_PERIOD = (ReportKind.CASE_MIX, ReportKind.OUTCOME)


@dataclass(frozen=True)
class ReportEpsilon:
    """Epsilon at the plan's delta.

    Args:
        planned: of one period, against whoever sees what the plan opens: a site's reports, or in
            mode `sum` the sum over the least number of sites alone.
        at_site: of one period, against whoever sees the site's own noisy counts, as both
            aggregators together would; in mode `sum` larger, for a site adds part of the noise.
        of_all: of all reports that the plan may ever make, as `at_site`: a site is charged this.
    """

    planned: float
    at_site: float
    of_all: float


def kind_mechanisms(plan: StudyPlan, kind: ReportKind) -> tuple[MechanismRecord, ...]:
    """Return the mechanisms of one kind of report on the patients whom it is about."""
    held_out = patient_parts(plan.evaluation).held_out
    return report_mechanisms(plan, kind, part=held_out if kind is ReportKind.REFERENCE else None)


def counted_mechanisms(plan: StudyPlan) -> tuple[tuple[MechanismRecord, int], ...]:
    """Return all that a plan's reports may ever do to a site's patients, and how often.

    The reference is of the held-out patients; in the two reports of each period may be anybody, so
    all periods compose.
    """
    periods = 0 if plan.monitoring is None else plan.monitoring.periods_max
    counted: Counter[MechanismRecord] = Counter(kind_mechanisms(plan, ReportKind.REFERENCE))
    for kind in _OF_PERIOD:
        for mechanism in kind_mechanisms(plan, kind):
            counted[mechanism] += periods
    return tuple(counted.items())


@functools.lru_cache(maxsize=16)
def report_epsilon(plan: StudyPlan) -> ReportEpsilon | None:
    """Return what a plan's reports cost; None without `[monitoring]`.

    Raises:
        AccountingError: when no noise keeps the plan's epsilon per report.
    """
    if plan.monitoring is None:
        return None
    delta = plan.privacy.delta
    period = [item for kind in _OF_PERIOD for item in kind_mechanisms(plan, kind)]
    return ReportEpsilon(
        planned=plan.monitoring.epsilon_per_report,
        at_site=epsilon_of(period, delta=delta),
        of_all=epsilon_of_counted(dict(counted_mechanisms(plan)), delta=delta),
    )
