"""Where a plan's tests alarm, so that all of a site's together keep one error rate in a year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.study.plan import StudyPlan
from server.monitor_board.plan_watches import GAPS, plan_watches
from server.monitor_board.statistics.sequential import alarm_level

SEQUENTIAL_ALPHA: Final = 0.04
LOOK_ALPHA: Final = 0.01
"""Together the share of years in which an unchanged site may raise any false alarm."""
REPORTS_PER_YEAR: Final = {"week": 53, "month": 12, "quarter": 4}
LOOKS_PER_YEAR: Final = 4


@dataclass(frozen=True)
class AlarmLevels:
    """The levels, which follow from the plan alone.

    Args:
        tests: how many a site has.
        sequential: in nats.
        look_p_value_max: of one test at one quarterly look.
    """

    tests: int
    sequential: float
    look_p_value_max: float


def alarm_levels(plan: StudyPlan) -> AlarmLevels:
    """Return the levels of a plan."""
    watches = plan_watches(plan)
    every = plan.monitoring.every if plan.monitoring is not None else "month"
    looked_at = sum(watch.metric not in GAPS for watch in watches)
    return AlarmLevels(
        tests=len(watches),
        sequential=alarm_level(
            tests=max(len(watches), 1),
            reports_per_year=REPORTS_PER_YEAR[every],
            alpha=SEQUENTIAL_ALPHA,
        ),
        look_p_value_max=LOOK_ALPHA / (LOOKS_PER_YEAR * max(looked_at, 1)),
    )
