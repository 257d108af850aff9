"""Each level of a group against all other patients: gaps that have intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from server.monitor_board.statistics.fairness import largest_difference, smallest_ratio
from server.monitor_board.statistics.intervals import (
    Estimate,
    Intervals,
    around,
    difference,
    enough_patients,
    proportion_interval,
)
from server.monitor_board.statistics.multiplicity import holm
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.statistics.performance import Proportion, proportions
from server.monitor_board.statistics.performance_estimates import (
    AUROC_WIDTH_MAX,
    RATE_WIDTH_MAX,
    RATIO_WIDTH_MAX,
    auroc_interval,
)
from server.monitor_board.statistics.projection import Float
from server.monitor_board.statistics.score_intervals import ScoredCounts
from server.monitor_board.statistics.score_scale import ScoreScale

RATES = ("alert_rate", "sensitivity", "false_positive_rate", "ppv")
# What is compared: demographic parity, equal opportunity, both parts of equalized odds, predictive
# parity, calibration in the large, and discrimination.
CRITERIA = (*RATES, "excess_risk", "auroc")

_AT_ONCE = 200


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
        of_level = level_intervals(counts, sd, scale)
        gaps = gap_intervals(counts, sd, scale)
        found += [_one(of_level, gaps, place) for place in range(len(part))]
    return tuple(found)


def level_intervals(counts: Float, sd: Float, scale: ScoreScale) -> dict[str, Intervals]:
    """Return `LevelPerformance`'s fields [reports, levels], nan where data do not suffice.

    Args:
        counts: noisy counts [reports, levels, 2, bins].
        sd: of each cell's noise, broadcast to [reports, levels].
    """
    raw, enough = _criteria(counts, sd, scale)
    bins = scale.bins
    total, events = counts.sum(axis=(-1, -2)), counts[..., 1, :].sum(axis=-1)
    always = np.ones_like(total, dtype=np.bool_)
    scored = ScoredCounts(counts, sd, scale.edges)
    with np.errstate(all="ignore"):
        ratio = scored.observed_to_expected()
    widths = {"auroc": AUROC_WIDTH_MAX}
    found = {
        "patients": around(total, sd * np.sqrt(2 * bins), low_min=0.0),
        "events": around(events, sd * np.sqrt(bins), low_min=0.0),
    }
    found = {name: many.judged(always, width_max=np.inf) for name, many in found.items()}
    found |= {
        name: many.judged(enough[name], width_max=widths.get(name, RATE_WIDTH_MAX))
        for name, many in raw.items()
    }
    found["observed_to_expected"] = ratio.judged(enough["auroc"], width_max=RATIO_WIDTH_MAX)
    return found


def gap_intervals(
    counts: Float, sd: Float, scale: ScoreScale
) -> dict[str, tuple[Intervals, Float]]:
    """Return each criterion's gaps and p-values [reports, levels], nan where data do not suffice.

    Args:
        counts: noisy counts [reports, levels, 2, bins].
        sd: of each cell's noise, broadcast to [reports, levels].
    """
    levels = counts.shape[-3]
    if levels < 2:
        return {}
    others = counts.sum(axis=-3, keepdims=True) - counts
    others_sd = sd * np.sqrt(levels - 1)
    own, own_enough = _criteria(counts, sd, scale)
    rest, rest_enough = _criteria(others, others_sd, scale)
    cells = proportions(scale.bins, scale.alert_bin)
    compared = np.arange(levels) < (1 if levels == 2 else levels)
    found = {}
    for name in CRITERIA:
        gap = difference(own[name], rest[name])
        gap = gap.judged(own_enough[name] & rest_enough[name] & compared, width_max=RATE_WIDTH_MAX)
        error = gap.standard_error
        if name in cells:
            error = _error_without_gap(counts, sd, others, others_sd, cells[name])
        with np.errstate(all="ignore"):
            size = np.where(gap.value == 0, 0.0, np.abs(gap.value) / error)
        found[name] = (gap, np.where(np.isnan(gap.value), np.nan, 2 * ndtr(-size)))
    return found


def _criteria(
    counts: Float, sd: Float, scale: ScoreScale
) -> tuple[dict[str, Intervals], dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]]:
    """Return the criteria's intervals, and whether their denominators are large enough."""
    cells = proportions(scale.bins, scale.alert_bin)
    found = {name: proportion_interval(counts, cells[name], sd) for name in RATES}
    enough = {}
    for name in RATES:
        among = cells[name].inside | cells[name].outside
        base = (counts * among).sum(axis=(-1, -2))
        enough[name] = enough_patients(base, noise_sd=sd * np.sqrt(among.sum()))
    events, total = counts[..., 1, :].sum(axis=-1), counts.sum(axis=(-1, -2))
    of_label = sd * np.sqrt(scale.bins)
    enough["auroc"] = enough_patients(events, noise_sd=of_label)
    enough["auroc"] &= enough_patients(total - events, noise_sd=of_label)
    enough["excess_risk"] = enough_patients(total, noise_sd=of_label * np.sqrt(2))
    with np.errstate(all="ignore"):
        found["excess_risk"] = ScoredCounts(counts, sd, scale.edges).excess_risk()
        found["auroc"] = auroc_interval(counts, sd)
    return found, enough


def _error_without_gap(
    first: Float, first_sd: Float, second: Float, second_sd: Float, cells: Proportion
) -> Float:
    """Return the standard error of a difference of shares if both were the same share."""

    def parts(counts: Float) -> tuple[Float, Float]:
        inside = (counts * cells.inside).sum(axis=(-1, -2))
        return inside, inside + (counts * cells.outside).sum(axis=(-1, -2))

    (inside, base), (other_inside, other_base) = parts(first), parts(second)
    with np.errstate(all="ignore"):
        share = np.clip((inside + other_inside) / (base + other_base), 0.0, 1.0)
        noise = (1 - share) ** 2 * cells.inside.sum() + share**2 * cells.outside.sum()
        chance = share * (1 - share)
        variance = chance / base + first_sd**2 * noise / base**2
        variance = variance + chance / other_base + second_sd**2 * noise / other_base**2
        return np.asarray(np.sqrt(variance))


def _one(
    of_level: Mapping[str, Intervals],
    gaps: Mapping[str, tuple[Intervals, Float]],
    place: int,
) -> GroupFairness:
    columns = {name: many.at(place).estimates() for name, many in of_level.items()}
    levels = tuple(
        LevelPerformance(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )
    found: list[LevelGap] = []
    for name, (gap, p_values) in gaps.items():
        own = p_values[place]
        adjusted = holm(own)
        found += [
            LevelGap(level, name, estimate, _number(own[level]), _number(adjusted[level]))
            for level, estimate in enumerate(gap.at(place).estimates())
            if len(levels) > 2 or level == 0
        ]
    values = {name: of_level[name].value[place] for name in CRITERIA}
    spread = {name: _spread(rates) for name, rates in values.items()}
    odds = [spread[name] for name in ("sensitivity", "false_positive_rate")]
    several = spread["alert_rate"] is not None
    return GroupFairness(
        levels=levels,
        gaps=tuple(found),
        largest_differences=spread,
        equalized_odds_difference=None if None in odds else max(x for x in odds if x is not None),
        demographic_parity_ratio=_number(smallest_ratio(values["alert_rate"])) if several else None,
        worst_levels={name: _worst(name, rates) for name, rates in values.items()},
    )


def _spread(rates: Float) -> float | None:
    return _number(largest_difference(rates)) if np.isfinite(rates).sum() > 1 else None


def _worst(name: str, rates: Float) -> int | None:
    if not np.isfinite(rates).any():
        return None
    if name in ("alert_rate", "false_positive_rate"):
        return int(np.nanargmax(rates))
    if name == "excess_risk":
        return int(np.nanargmax(np.abs(rates)))
    return int(np.nanargmin(rates))


def _number(value: Float | np.float64) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
