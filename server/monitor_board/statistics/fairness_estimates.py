"""The fairness that outcome reports show: each level of a group against all other patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.monitor_board.statistics.group_intervals import CRITERIA, group_intervals
from server.monitor_board.statistics.intervals import Estimate
from server.monitor_board.statistics.multiplicity import holm
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.statistics.projection import Float
from server.monitor_board.statistics.score_scale import ScoreScale

_AT_ONCE = 500


@dataclass(frozen=True)
class LevelPerformance:
    """The model among the patients of one level.

    Args:
        patients, events: with the interval of their noise alone.
        excess_risk: share of events less mean prediction; above 0 the model promises too little.
    """

    patients: Estimate
    events: Estimate
    alert_rate: Estimate
    sensitivity: Estimate
    false_positive_rate: Estimate
    ppv: Estimate
    excess_risk: Estimate
    observed_to_expected: Estimate
    auroc: Estimate


@dataclass(frozen=True)
class LevelGap:
    """One level against all other patients.

    Args:
        level: its place among the levels; of two levels only the first is compared.
        criterion: one of `CRITERIA`.
        gap: the level's value less the others'.
        p_value: that there is no gap; None when data do not suffice.
        p_adjusted: by Holm, for the levels that were compared by this criterion.
    """

    level: int
    criterion: str
    gap: Estimate
    p_value: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class GroupFairness:
    """What one outcome report says of the levels of one group.

    Args:
        levels: in the plan's order.
        gaps: by criterion, then level.
        largest_differences: over the levels with enough data, by criterion; too large by nature,
            to show and not to test.
        equalized_odds_difference: the larger one of sensitivity and false positive rate.
        demographic_parity_ratio: lowest over highest alert rate.
        worst_levels: where sensitivity, PPV or AUROC is lowest, alert or false positive rate
            highest, excess risk farthest from 0; None when no level has enough data.
    """

    levels: tuple[LevelPerformance, ...]
    gaps: tuple[LevelGap, ...]
    largest_differences: Mapping[str, float | None]
    equalized_odds_difference: float | None
    demographic_parity_ratio: float | None
    worst_levels: Mapping[str, int | None]


def estimate_fairness(
    tensors: Sequence[NoisyCounts], scale: ScoreScale
) -> tuple[GroupFairness, ...]:
    """Return the fairness that each tensor of one group [levels, 2, group bins] shows.

    Args:
        scale: the group edges and the threshold.
    """
    found: list[GroupFairness] = []
    for start in range(0, len(tensors), _AT_ONCE):
        part = tensors[start : start + _AT_ONCE]
        counts = np.stack([np.asarray(tensor.values, dtype=np.float64) for tensor in part])
        sd = np.asarray([[tensor.sd] for tensor in part], dtype=np.float64)
        numbers, levels = _find(counts, sd, scale), counts.shape[1]
        found += [
            _one(numbers, slice(start, start + levels))
            for start in range(0, len(part) * levels, levels)
        ]
    return tuple(found)


@dataclass(frozen=True)
class _Found:
    """All numbers of some reports: lists over reports, then levels."""

    of_level: Mapping[str, list[Estimate]]
    gaps: Mapping[str, tuple[list[Estimate], list[float], list[float]]]


def _find(counts: Float, sd: Float, scale: ScoreScale) -> _Found:
    many_reports = group_intervals(counts, sd, scale)
    return _Found(
        {name: many.estimates() for name, many in many_reports.levels.items()},
        {
            name: (gap.estimates(), p_values.ravel().tolist(), holm(p_values).ravel().tolist())
            for name, (gap, p_values) in many_reports.gaps.items()
        },
    )


def _one(found: _Found, own: slice) -> GroupFairness:
    number = own.stop - own.start
    columns = {name: column[own] for name, column in found.of_level.items()}
    gaps = [
        LevelGap(
            level, name, gap[own][level], _number(p[own][level]), _number(adjusted[own][level])
        )
        for name, (gap, p, adjusted) in found.gaps.items()
        for level in range(1 if number == 2 else number)
    ]
    values = {name: [item.value for item in columns[name]] for name in CRITERIA}
    known = {name: [x for x in items if x is not None] for name, items in values.items()}
    spread = {name: _spread(items) for name, items in known.items()}
    odds = [spread["sensitivity"], spread["false_positive_rate"]]
    alerts = known["alert_rate"]
    ratio = min(alerts) / max(alerts) if len(alerts) > 1 and max(alerts) > 0 else None
    return GroupFairness(
        levels=tuple(
            LevelPerformance(**{name: column[level] for name, column in columns.items()})
            for level in range(number)
        ),
        gaps=tuple(gaps),
        largest_differences=spread,
        equalized_odds_difference=None if None in odds else max(x for x in odds if x is not None),
        demographic_parity_ratio=ratio,
        worst_levels={name: _worst(name, items) for name, items in values.items()},
    )


def _spread(known: Sequence[float]) -> float | None:
    return max(known) - min(known) if len(known) > 1 else None


def _worst(name: str, values: Sequence[float | None]) -> int | None:
    badness = [
        (_badness(name, value), -level) for level, value in enumerate(values) if value is not None
    ]
    return -max(badness)[1] if badness else None


def _badness(name: str, value: float) -> float:
    if name in ("alert_rate", "false_positive_rate"):
        return value
    return abs(value) if name == "excess_risk" else -value


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
