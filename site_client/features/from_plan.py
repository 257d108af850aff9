"""A plan's words to what is asked of the event table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from common.errors import PlanError
from common.study.cohort import Criterion as PlanCriterion
from common.study.cohort import IndexDate
from common.study.cohort_rules import UNIT_OF_AGGREGATE
from common.study.plan import BinaryLabel, CategoricalFeature, NumericFeature, StudyPlan
from common.units.conversions import Conversion, unit_table
from site_client.features.definitions import (
    Aggregate,
    CategoricalVariable,
    Criterion,
    IndexEvent,
    NumericVariable,
    Outcome,
    Variable,
    Window,
)

Narrower = Callable[[frozenset[str]], Mapping[str, frozenset[str]]]
"""A source's `descendants`."""
UnitsOf = Callable[[frozenset[str]], Iterable[str | None]]
"""The distinct units in which events of these codes were recorded."""


def all_codes(codes: Iterable[str], narrower: Narrower) -> frozenset[str]:
    """Return the codes and all that are narrower by the source's own vocabulary."""
    asked = frozenset(codes)
    return asked.union(*narrower(asked).values())


def index_event_of(
    index: IndexDate, narrower: Narrower, *, ages: tuple[int, int] | None = None
) -> IndexEvent:
    """Return the entry event; of "every" all rows, of which the matrix draws."""
    return IndexEvent(
        codes=all_codes(index.codes, narrower),
        occurrence=index.occurrence,
        delay=timedelta(hours=index.hours_after),
        observed=timedelta(days=index.observed_days_min),
        rows_max=_ALL,
        ages=ages,
    )


_ALL: Final = 2**31 - 1


def criteria_of(plan: StudyPlan, narrower: Narrower) -> list[Criterion]:
    """Return the plan's inclusion and exclusion criteria, in its order."""

    def criterion(item: PlanCriterion, *, excludes: bool) -> Criterion:
        window = Window(timedelta(days=item.days_before), timedelta(days=item.days_until))
        return Criterion(all_codes(item.codes, narrower), window, item.count_min, excludes)

    required = [criterion(item, excludes=False) for item in plan.cohort.require]
    return required + [criterion(item, excludes=True) for item in plan.cohort.exclude]


def outcome_of(label: BinaryLabel, narrower: Narrower, units_of: UnitsOf) -> Outcome:
    """Return the outcome, with the conversions of a bound's unit."""
    codes = all_codes(label.codes, narrower)
    conversions = None
    if label.unit is not None:
        conversions = _conversions(
            units_of(codes), label.unit, analyte=label.analyte, assume=label.unit_if_missing
        )
    return Outcome(
        codes=codes,
        horizon=timedelta(days=label.prediction_window_days),
        gap=timedelta(hours=label.gap_hours),
        conversions=conversions,
        above=label.above,
        below=label.below,
        followed=label.follow_up == "required",
    )


def variable_of(
    feature: NumericFeature | CategoricalFeature, narrower: Narrower, units_of: UnitsOf
) -> Variable:
    """Return the variable of a feature other than age."""
    codes = all_codes(feature.codes, narrower)
    window = Window(timedelta(days=feature.window_days))
    if isinstance(feature, CategoricalFeature):
        levels = {level: place for place, level in enumerate(feature.levels)}
        return CategoricalVariable(codes, levels, window)
    aggregate = Aggregate(feature.aggregate)
    conversions = None
    if aggregate not in UNIT_OF_AGGREGATE:
        try:
            conversions = _conversions(
                units_of(codes),
                feature.unit,
                analyte=feature.analyte,
                assume=feature.unit_if_missing,
            )
        except PlanError as error:
            raise PlanError(
                f"{error.refused}: that of {feature.name}",
                expected=error.expected,
                arrived=error.arrived,
                todo=error.todo,
            ) from None
    return NumericVariable(codes, conversions, feature.plausible_range, aggregate, window)


def _conversions(
    found: Iterable[str | None], to_unit: str, *, analyte: str | None, assume: str | None
) -> dict[str, Conversion]:
    decisions = unit_table(found, to_unit, analyte=analyte, assume=assume)
    return {
        decision.unit or "": decision.conversion
        for decision in decisions
        if decision.conversion is not None
    }
