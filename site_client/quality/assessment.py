"""From a site's rows to the figures of their quality: one pass over each feature's column."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from common.study.cohort import AGE
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from site_client.features.event_patients import EventPatients
from site_client.features.forward_fill import forward_filled
from site_client.features.site_rows import SiteRows
from site_client.quality.figures import (
    EventFates,
    FeatureFigures,
    GroupSize,
    Part,
    QualityFigures,
    SourceFigures,
)
from site_client.quality.leakage import categorical_auroc, numeric_auroc
from site_client.sources.table import MISSING_LEVEL, FeatureCounts, PatientTable

RANGES: Final = 10
"""Between the plan's clip bounds, which are public: no bound is learnt from the data."""
UNMAPPED_CODES_LISTED_MAX: Final = 20
_OTHER_SCALE: Final[Mapping[str, tuple[float, float]]] = {
    "count": (0, math.inf),
    "any": (0, 1),
    "time_since": (0, math.inf),
    "slope": (-math.inf, math.inf),
}
_WHOLE: Final = ("count", "any")
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)

Bools = npt.NDArray[np.bool_]


def assess_quality(plan: StudyPlan, rows: SiteRows) -> QualityFigures:
    """Return the figures of rows that fit the plan.

    Args:
        plan: with whose features and fairness groups.
        rows: of `inspected_rows`, else what needs the events is left out.
    """
    table, events = rows.table, rows.events
    is_positive = table.label > 0.5
    features = tuple(
        _with_events(
            _numeric(item, table, is_positive, _possible(item, plan, has_events=events is not None))
            if isinstance(item, NumericFeature)
            else _categorical(item, table, is_positive),
            events,
        )
        for item in plan.features
    )
    inspection = None if events is None else events.inspection
    parts = {item.name: item.parts for item in features}
    return QualityFigures(
        rows=table.rows,
        patients=table.patients,
        positive=int(is_positive.sum()),
        unlabelled=table.unlabelled,
        alike=_alike(table),
        features=features,
        groups=tuple(
            GroupSize(group.feature, part.label, part.rows, part.positive)
            for group in plan.fairness_groups
            for part in parts[group.feature]
        ),
        months=None if inspection is None else _months(inspection.index_times),
        attrition=() if events is None else events.attrition,
        source=None if events is None else _source(events),
        outcome_at_index=None if inspection is None else inspection.outcome_at_index,
    )


def once_per_patient(rows: SiteRows) -> SiteRows:
    """Return the rows with each patient's first one only, so that counts of rows are of patients.

    What is not known of a single row, such as why its value is missing, is left out.
    """
    table = rows.table
    if table.patients == table.rows:
        return rows
    met: dict[str, int] = {}
    for place, subject_id in enumerate(table.subject_ids):
        met.setdefault(subject_id, place)
    first = np.zeros(table.rows, np.bool_)
    first[list(met.values())] = True
    numeric = {name: column[first] for name, column in table.numeric.items()}
    levels = {name: column[first] for name, column in table.levels.items()}
    missing = {name: int(np.isnan(_last(column)).sum()) for name, column in numeric.items()}
    missing |= {name: int((column == MISSING_LEVEL).sum()) for name, column in levels.items()}
    left = PatientTable(
        subject_ids=tuple(itertools.compress(table.subject_ids, first)),
        numeric=numeric,
        levels=levels,
        label=table.label[first],
        counts={name: FeatureCounts(int(first.sum()) - n, n) for name, n in missing.items()},
        unlabelled=table.unlabelled,
    )
    events = rows.events
    if events is not None and events.inspection is not None:
        times = events.inspection.index_times[first]
        events = replace(events, inspection=replace(events.inspection, index_times=times))
    return SiteRows(left, events)


def _last(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the last value known at the index date, of a feature with time bins or without."""
    return values if values.ndim == 1 else forward_filled(values[:, :, None])[:, -1, 0]


def _possible(feature: NumericFeature, plan: StudyPlan, *, has_events: bool) -> tuple[float, float]:
    """Return the smallest and largest value that a row of this plan can have."""
    low, high = feature.plausible_range
    # Of these the plausible range is that of the values, not of what is made of them.
    if feature.aggregate in _OTHER_SCALE:
        return _OTHER_SCALE[feature.aggregate]
    if has_events and AGE in feature.codes and feature.unit == "a":
        return max(low, plan.cohort.age_years_min), min(high, plan.cohort.age_years_max)
    return low, high


def _numeric(
    feature: NumericFeature,
    table: PatientTable,
    is_positive: Bools,
    possible: tuple[float, float],
) -> FeatureFigures:
    values, counts = _last(table.numeric[feature.name]), table.counts[feature.name]
    ones, zeros = np.sort(values[is_positive]), np.sort(values[~is_positive])
    sole_auroc = numeric_auroc(ones, zeros)
    ones, zeros = ones[~np.isnan(ones)], zeros[~np.isnan(zeros)]
    recorded = np.sort(np.concatenate([ones, zeros]))
    labels, inner = _ranges(feature.clip, possible, is_whole=feature.aggregate in _WHOLE)
    # Counting sorted values below each bound costs nothing beside the sort.
    positive, negative = (
        np.diff(np.searchsorted(column, inner, side="left"), prepend=0, append=len(column))
        for column in (ones, zeros)
    )
    quantiles = np.quantile(recorded, _QUANTILES) if len(recorded) else np.empty(0)
    return FeatureFigures(
        name=feature.name,
        unit=feature.unit,
        rows=table.rows,
        recorded=len(recorded),
        out_of_range=counts.out_of_range,
        unmapped=counts.unmapped,
        parts=tuple(
            Part(label, int(one + zero), int(one))
            for label, one, zero in zip(labels, positive, negative, strict=True)
        ),
        quantiles=tuple(float(item) for item in quantiles),
        distinct=int((np.diff(recorded) > 0).sum()) + 1 if len(recorded) else 0,
        sole_auroc=sole_auroc,
    )


def _categorical(
    feature: CategoricalFeature, table: PatientTable, is_positive: Bools
) -> FeatureFigures:
    levels, counts = table.levels[feature.name], table.counts[feature.name]
    size = len(feature.levels)
    # A missing level is -1 and becomes the last place.
    places = np.where(levels == MISSING_LEVEL, size, levels)
    ones = np.bincount(places[is_positive], minlength=size + 1)
    zeros = np.bincount(places[~is_positive], minlength=size + 1)
    rows = (ones + zeros)[:-1]
    return FeatureFigures(
        name=feature.name,
        unit="",
        rows=table.rows,
        recorded=int(rows.sum()),
        out_of_range=counts.out_of_range,
        unmapped=counts.unmapped,
        parts=tuple(
            Part(level, int(number), int(one))
            for level, number, one in zip(feature.levels, rows, ones[:-1], strict=True)
        ),
        quantiles=(),
        distinct=int((rows > 0).sum()),
        sole_auroc=categorical_auroc(ones, zeros),
    )


def _with_events(figures: FeatureFigures, events: EventPatients | None) -> FeatureFigures:
    if events is None:
        return figures
    met = events.variables.get(figures.name)
    if met is not None:
        fates = EventFates(met.used, met.no_value, met.other_unit, met.implausible)
        figures = replace(figures, events=fates)
    if events.inspection is None:
        return figures
    return replace(
        figures,
        units=events.inspection.units.get(figures.name),
        other_texts=events.inspection.other_texts.get(figures.name, ()),
        outcome_codes=events.inspection.outcome_codes.get(figures.name),
    )


def _ranges(
    clip: tuple[float, float], possible: tuple[float, float], *, is_whole: bool
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return labels of the ranges that can have a value, and the bounds between them.

    A range in which nobody can be has no part: its count of zero would be no secret, and the
    suppression of its neighbours would rest on one.
    """
    low, high = clip
    if is_whole and high - low < RANGES and math.ceil(low) <= math.floor(high):
        edges = np.arange(math.ceil(low), math.floor(high) + 1, dtype=np.float64)
        inside = [f"{number:g}" for number in edges]
        starts = np.array([-np.inf, *edges, np.nextafter(edges[-1], np.inf)])
    else:
        edges = np.linspace(low, high, RANGES + 1)
        inside = [f"{first:g} to {last:g}" for first, last in itertools.pairwise(edges)]
        # The plan's last bound is a value like any other: it belongs to the range below it.
        starts = np.array([-np.inf, *edges[:-1], np.nextafter(high, np.inf)])
    labels = [f"below {edges[0]:g}", *inside, f"above {edges[-1]:g}"]
    stops = np.append(starts[1:], np.inf)
    can_be = (stops > possible[0]) & (starts <= possible[1])
    kept = [label for label, is_kept in zip(labels, can_be, strict=True) if is_kept]
    return kept, starts[can_be][1:]


def _alike(table: PatientTable) -> int:
    """Return how many rows equal another in everything but the patient, by a hash of 64 bits."""
    numeric = [item.reshape(table.rows, -1).T for item in table.numeric.values()]
    columns = [*itertools.chain(*numeric), *table.levels.values(), table.label]
    total = np.zeros(table.rows, np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing
    for column in columns:
        bits = np.ascontiguousarray(column, np.float64).view(np.uint64)
        total = (total ^ (bits + (bits >> np.uint64(29)))) * multiplier
        total ^= total >> np.uint64(32)
    _, counts = np.unique(total, return_counts=True)
    return int(counts[counts > 1].sum())


def _months(times: npt.NDArray[np.datetime64]) -> dict[str, int]:
    """Return index dates per month, months without one between the first and last included."""
    if len(times) == 0:
        return {}
    months = times.astype("datetime64[M]").astype(np.int64)
    first = int(months.min())
    counts = np.bincount(months - first)
    return {str(np.datetime64(first + place, "M")): int(n) for place, n in enumerate(counts)}


def _source(events: EventPatients) -> SourceFigures:
    counts = events.source
    most = sorted(counts.unmapped.items(), key=lambda item: (-item[1], item[0]))
    return SourceFigures(
        records=dict(sorted(counts.records.items())),
        excluded={reason.value: number for reason, number in counts.excluded.items() if number},
        unmapped_codes=dict(most[:UNMAPPED_CODES_LISTED_MAX]),
    )
