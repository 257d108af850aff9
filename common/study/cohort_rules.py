"""Plan rules about time: criteria, the label's bound, aggregates that count. Numbers: `rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.study.cohort import AGE
from common.study.plan import GatedRecurrentUnit, NumericFeature, StudyPlan
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


def rule_time_bins_have_an_indicator(plan: StudyPlan) -> Iterator[Problem]:
    """Values in time bins have an indicator, and age is not binned."""
    for place, feature in enumerate(plan.features):
        if not isinstance(feature, NumericFeature) or feature.time_bins is None:
            continue
        if feature.missing != "indicator":
            yield Problem(
                f"features[{place}].missing",
                feature.missing,
                'missing = "indicator": hardly a patient has a value in every bin',
                "remove the key, or remove time_bins",
            )
        if AGE in feature.codes:
            yield Problem(
                f"features[{place}].time_bins",
                str(feature.time_bins),
                "no bins for the age at the index date",
                "remove the key; a recurrent model repeats what has no bins",
            )


def rule_recurrent_models_have_one_time_line(plan: StudyPlan) -> Iterator[Problem]:
    """A recurrent model has features in time bins, all of one window and number of bins."""
    if not isinstance(plan.model, GatedRecurrentUnit):
        return
    first: NumericFeature | None = None
    for place, feature in enumerate(plan.features):
        if not isinstance(feature, NumericFeature) or feature.time_bins is None:
            continue
        first = first or feature
        for key in ("time_bins", "window_days"):
            if getattr(feature, key) != getattr(first, key):
                yield Problem(
                    f"features[{place}].{key}",
                    str(getattr(feature, key)),
                    f"{getattr(first, key)}, as of {first.name}: a bin is one stretch of time",
                    "make them equal, or remove time_bins here",
                )
    if first is None:
        yield Problem(
            "model.kind",
            "gru, and no feature has time_bins",
            "one or more numeric features with time_bins",
            "add time_bins to what changes in time, or choose another model",
        )
