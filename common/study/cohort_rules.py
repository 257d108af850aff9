"""Plan rules about time: criteria, the label's bound, aggregates that count. Numbers: `rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.study.plan import NumericFeature, StudyPlan
from common.study.problems import Problem

UNIT_OF_AGGREGATE: Final = {"count": "1", "any": "1", "time_since": "d"}
"""Aggregates whose result is no value of the quantity."""


def rule_criteria_windows_are_ordered(plan: StudyPlan) -> Iterator[Problem]:
    """A criterion's window begins before it ends."""
    for name, criteria in (("require", plan.cohort.require), ("exclude", plan.cohort.exclude)):
        for place, criterion in enumerate(criteria):
            if criterion.days_until >= criterion.days_before:
                yield Problem(
                    f"cohort.{name}[{place}].days_until",
                    f"{criterion.days_until}, with days_before {criterion.days_before}",
                    "fewer days before the index date than days_before",
                    "correct one of the two",
                )


def rule_label_bound_has_a_unit(plan: StudyPlan) -> Iterator[Problem]:
    """A bound on the label's value has a unit, a unit has a bound, and the bounds leave room."""
    label = plan.label
    bounded = label.above is not None or label.below is not None
    if bounded != (label.unit is not None):
        yield Problem(
            "label.unit",
            label.unit or "none",
            "a unit if there is `above` or `below`, and no unit without them",
            "give the bound's unit, or remove what is too much",
        )
    # An event beyond either bound would need both: outside a range is two labels.
    if label.above is not None and label.below is not None and label.above >= label.below:
        yield Problem(
            "label.above",
            f"{label.above}, with below {label.below}",
            "a value between the two bounds",
            "exchange the bounds, or keep one of them",
        )


def rule_counting_aggregates_have_their_unit(plan: StudyPlan) -> Iterator[Problem]:
    """A count has the unit 1 and a time since the unit d."""
    for place, feature in enumerate(plan.features):
        if not isinstance(feature, NumericFeature):
            continue
        unit = UNIT_OF_AGGREGATE.get(feature.aggregate)
        if unit is not None and feature.unit != unit:
            yield Problem(
                f"features[{place}].unit",
                feature.unit,
                f"{unit}, the unit of {feature.aggregate}",
                "correct the unit, or choose another aggregate",
            )
