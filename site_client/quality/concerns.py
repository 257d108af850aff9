"""What in the figures needs a steward's look, each rule with its threshold and its reason."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from typing import Final

from common.study.plan import StudyPlan
from site_client.quality.figures import Concern, FeatureFigures, QualityFigures
from site_client.quality.leakage import AUROC_SUSPICIOUS

PREVALENCE_MIN: Final = 0.05
"""Of the rarer outcome: below it "never" is right 19 times in 20, which hides a useless model."""
COMPLETENESS_MIN: Final = 0.5
"""Below it the missing indicator says more than the value."""
OUT_OF_RANGE_MAX: Final = 0.01
"""Slips of the keyboard are rarer; twenty times as many are refused as another unit."""
LEFT_OUT_MAX: Final = 0.01
"""Of values or records left out for one reason; fewer change no feature noticeably."""
MEDIAN_RATIO_MAX: Final = 5.0
"""Between two units of one quantity after conversion; laboratories differ by far less."""
PATIENTS_MIN: Final = 10
"""Fewer patients give no median to compare, and no outcome rate of a group."""
ALIKE_MAX: Final = 0.01
"""Of rows that equal another row, where features are fine enough that chance makes hardly one."""
_FINE_VALUES: Final = 20
_FINE_FEATURES: Final = 3
_MONTH_ROWS_MIN: Final = 20


def concerns_of(plan: StudyPlan, figures: QualityFigures) -> tuple[Concern, ...]:
    """Return what needs a look, in the order of the report; clean data have none."""
    found = [*_outcome(figures), *_rows(figures), *_absent(figures), *_never_met(figures)]
    is_bounded = plan.label.above is not None or plan.label.below is not None
    for item in figures.features:
        found += [*_values(item), *_units(item), *_leakage(item, is_bounded=is_bounded)]
    return (*found, *_groups(figures), *_source(figures))


def _outcome(figures: QualityFigures) -> Iterator[Concern]:
    rarer = min(figures.positive, figures.rows - figures.positive)
    if figures.rows and rarer < PREVALENCE_MIN * figures.rows:
        yield Concern(
            "imbalance",
            "",
            f"the rarer outcome is that of {rarer:,} of {figures.rows:,} rows "
            f"({rarer / figures.rows:.1%}; below {PREVALENCE_MIN:.0%} a model that never says it "
            "looks right)",
            "check how the outcome is recorded; if it is that rare, ask the coordinator about "
            "positive_class_weight and about how many patients all sites have together",
        )
    if figures.outcome_at_index:
        yield Concern(
            "outcome-at-index",
            "",
            f"{figures.outcome_at_index:,} rows have the outcome's code at exactly the index time: "
            "it counts as before, not as the outcome",
            "check whether the source rounds times to the day; if so, ask for hours_after or "
            "gap_hours in the plan",
        )


def _rows(figures: QualityFigures) -> Iterator[Concern]:
    fine = [item for item in figures.features if item.unit and item.distinct > _FINE_VALUES]
    if len(fine) >= _FINE_FEATURES and figures.alike > ALIKE_MAX * figures.rows:
        yield Concern(
            "alike",
            "",
            f"{figures.alike:,} rows equal another row in every feature and the outcome",
            "check whether patients stand in the data twice; a patient with two identifiers can "
            "be trained on and held out at once",
        )
    if figures.months and len(figures.months) > 2:
        usual = statistics.median(figures.months.values())
        empty = [month for month, rows in figures.months.items() if rows == 0]
        if usual >= _MONTH_ROWS_MIN and empty:
            yield Concern(
                "months",
                "",
                f"no index date in {len(empty)} month(s), first {empty[0]}, though a month has "
                f"{usual:g} as a rule",
                "check whether an export is missing, or whether the codes changed",
            )


def _absent(figures: QualityFigures) -> Iterator[Concern]:
    names = [item.name for item in figures.features if item.recorded == 0]
    if names:
        yield Concern(
            "completeness",
            "",
            f"no usable value at all: {', '.join(names)}",
            "check the mapping and the codes; if you do not record it, tell the coordinator",
        )


def _never_met(figures: QualityFigures) -> Iterator[Concern]:
    names = [item.name for item in figures.features if _is_never_met(item)]
    if names:
        yield Concern(
            "constant",
            "",
            f"no event of its codes was met, so that every row has a nought: {', '.join(names)}",
            "if your records name this otherwise, add a code map, or ask the coordinator to add "
            "your codes; kinds of a code are found only where you have vocabulary tables",
        )


def _is_never_met(item: FeatureFigures) -> bool:
    return item.events is not None and item.events.used == 0 and item.recorded > 0


def _values(item: FeatureFigures) -> Iterator[Concern]:
    if item.recorded and item.completeness < COMPLETENESS_MIN:
        yield Concern(
            "completeness",
            item.name,
            f"{item.name} has a usable value in {item.completeness:.0%} of the rows",
            "check the mapping, the codes and the window; else say so to the coordinator",
        )
    if item.recorded and item.distinct == 1 and not _is_never_met(item):
        yield Concern(
            "constant",
            item.name,
            f"{item.name} is the same in every row that has a value",
            "check the mapping: a constant teaches nothing",
        )
    if item.events is None:
        outside, present = item.out_of_range, item.recorded + item.out_of_range
    else:
        outside = item.events.implausible
        present = item.events.used + outside
    if outside > OUT_OF_RANGE_MAX * max(present, 1):
        yield Concern(
            "range",
            item.name,
            f"{outside:,} of {present:,} values of {item.name} are outside the plausible range",
            "check unit and typing errors at the origin; they count as missing",
        )
    met = item.unmapped + sum(text.values for text in item.other_texts)
    if met > LEFT_OUT_MAX * max(item.recorded + met, 1):
        yield Concern(
            "unmapped",
            item.name,
            f"{met:,} entries of {item.name} are no level of the plan and count as missing",
            "map these texts to the plan's levels, or tell the coordinator that one is missing",
        )


def _units(item: FeatureFigures) -> Iterator[Concern]:
    units = item.units or ()
    values = sum(unit.values for unit in units)
    for unit in units:
        if unit.left_out is not None and unit.values > LEFT_OUT_MAX * values:
            yield Concern(
                "unit",
                item.name,
                f"{unit.values:,} of {values:,} values of {item.name} are left out, recorded in "
                f"{_named(unit.unit)}: {unit.left_out}",
                "correct the unit at the source, or ask the coordinator for unit_if_missing or "
                "analyte in the plan",
            )
    used = [(unit, unit.median) for unit in units if unit.median and unit.patients >= PATIENTS_MIN]
    for (first, first_median), (second, second_median) in itertools.pairwise(used):
        ratio = abs(first_median / second_median)
        if not 1 / MEDIAN_RATIO_MAX <= ratio <= MEDIAN_RATIO_MAX:
            yield Concern(
                "unit",
                item.name,
                f"values of {item.name} recorded in {_named(first.unit)} and in "
                f"{_named(second.unit)} differ {max(ratio, 1 / ratio):.0f}-fold after conversion",
                "one of the two units is probably not what was measured: ask the laboratory",
            )


def _leakage(item: FeatureFigures, *, is_bounded: bool) -> Iterator[Concern]:
    auroc = item.sole_auroc
    if auroc.is_suspicious and auroc.largest is not None:
        by_missing = auroc.largest == auroc.missing
        yield Concern(
            "leakage",
            item.name,
            f"{'whether ' if by_missing else ''}{item.name} {'is missing ' if by_missing else ''}"
            f"alone tells the outcome with an AUROC of {auroc.largest:.3f} (above "
            f"{AUROC_SUSPICIOUS}; {auroc.rows:,} rows, {auroc.recorded:,} with a value)",
            "ask whether it is recorded because of the outcome, or after it; if so, tell the "
            "coordinator and do not approve",
        )
    # A label with a bound is about a later value of what the feature measures: codes may be shared.
    if item.outcome_codes and not is_bounded:
        yield Concern(
            "outcome-code",
            item.name,
            f"{item.name} holds codes of the outcome itself, met before the index date in "
            f"{item.outcome_codes:,} rows",
            "ask the coordinator whether patients who had the outcome before belong in the cohort",
        )


def _groups(figures: QualityFigures) -> Iterator[Concern]:
    for group in figures.groups:
        rarer = min(group.positive, group.rows - group.positive)
        if group.rows and rarer < PATIENTS_MIN:
            yield Concern(
                "group",
                group.feature,
                f"the group {group.feature} = {group.level} has {group.rows:,} rows, {rarer:,} of "
                "them with the rarer outcome: too few to compare performance",
                "nothing, if it is right; do not read this group's performance from your site",
            )


def _source(figures: QualityFigures) -> Iterator[Concern]:
    if figures.source is None:
        return
    records = sum(figures.source.records.values())
    for reason, number in figures.source.excluded.items():
        if number > LEFT_OUT_MAX * records:
            yield Concern(
                "excluded",
                "",
                f"{number:,} of {records:,} records are left out: {reason}",
                "see the list of codes, and map them"
                if figures.source.unmapped_codes
                else "ask whoever makes the export",
            )


def _named(unit: str | None) -> str:
    return "no unit" if unit is None else repr(unit)
