"""Plan rules about aggregation. Numbers are in `rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.study.aggregation import (
    AggregationSpec,
    CoordinateMedian,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from common.study.plan import StudyPlan
from common.study.problems import Problem

SELECTED_MIN: Final = 2


def quorum_needed(aggregation: AggregationSpec) -> int:
    """Return the fewest updates with which an aggregation keeps its promise.

    A median and a trimmed mean need an honest majority, 2f + 1 (Yin et al. 2018, Theorems 1 and 4:
    the share of dishonest sites is below one half). Krum needs 2f + 3 (Blanchard et al. 2017,
    Proposition 1). The median of the norms needs an honest majority as well.
    """
    match aggregation:
        case TrimmedMean() | CoordinateMedian():
            return 2 * aggregation.dishonest_sites + 1
        case MultiKrum():
            return 2 * aggregation.dishonest_sites + 3
        case NormBound(norm_max="median"):
            return 3
        case _:
            return 1


def rule_quorum_outvotes_dishonest_sites(plan: StudyPlan) -> Iterator[Problem]:
    """The quorum is large enough for the aggregation; a plan that selects aggregates nothing."""
    if plan.selection is not None:
        return
    needed, quorum = quorum_needed(plan.training.aggregation), plan.training.quorum
    if quorum < needed:
        yield Problem(
            "training.quorum",
            f"{quorum}, with {plan.training.aggregation.kind} as the aggregation",
            f"at least {needed}",
            "raise the quorum, or tolerate fewer dishonest sites: with fewer updates they outvote "
            "the honest ones",
        )


def rule_several_updates_are_selected(plan: StudyPlan) -> Iterator[Problem]:
    """Two updates or more are averaged, and not so many that a dishonest one must be among them."""
    aggregation = plan.training.aggregation
    if plan.selection is not None or not isinstance(aggregation, MultiKrum):
        return
    most = max(SELECTED_MIN, plan.training.quorum - aggregation.dishonest_sites - 2)
    if not SELECTED_MIN <= aggregation.selected <= most:
        yield Problem(
            "training.aggregation.selected",
            str(aggregation.selected),
            f"{SELECTED_MIN} to {most}: the quorum without the dishonest sites and two more",
            "select two or more: a model of one selected update is that site's own, which every "
            "other site would receive; and select fewer than there are honest sites",
        )


def rule_norm_bound_bounds(plan: StudyPlan) -> Iterator[Problem]:
    """A public norm bound is below the norm that is refused anyway."""
    aggregation = plan.training.aggregation
    if not isinstance(aggregation, NormBound) or aggregation.norm_max == "median":
        return
    if aggregation.norm_max >= plan.training.update_norm_max:
        yield Problem(
            "training.aggregation.norm_max",
            str(aggregation.norm_max),
            f"less than training.update_norm_max = {plan.training.update_norm_max}",
            "lower it: updates above update_norm_max are refused, so it would bound nothing",
        )
