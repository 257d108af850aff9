"""Each level's statistics and its gaps to all other patients, for many reports at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from server.monitor_board.statistics.intervals import (
    Intervals,
    around,
    difference,
    enough_patients,
    proportion_interval,
)
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


@dataclass(frozen=True)
class GroupIntervals:
    """Arrays [reports, levels], nan where data do not suffice.

    Args:
        levels: by the fields of `LevelPerformance`.
        gaps: by criterion, each level less all others, with the p-value of no gap; of two levels
            only the first is compared, and a single one is not.
    """

    levels: dict[str, Intervals]
    gaps: dict[str, tuple[Intervals, Float]]


@dataclass(frozen=True)
class _Side:
    """Some patients' counts and statistics, and whether their denominators are large enough."""

    counts: Float
    sd: Float
    found: dict[str, Intervals]
    enough: dict[str, npt.NDArray[np.bool_]]


def group_intervals(counts: Float, sd: Float, scale: ScoreScale) -> GroupIntervals:
    """Return the levels' statistics and gaps.

    Args:
        counts: noisy counts [reports, levels, 2, group bins].
        sd: of each cell's noise, broadcast to [reports, levels].
        scale: the group edges and the threshold.
    """
    levels = counts.shape[-3]
    own = _side(counts, sd, scale)
    if levels < 2:
        return GroupIntervals(_judged(own, scale), {})
    others = counts.sum(axis=-3, keepdims=True) - counts
    rest = _side(others, sd * np.sqrt(levels - 1), scale)
    return GroupIntervals(_judged(own, scale), _gaps(own, rest, scale))


def _side(counts: Float, sd: Float, scale: ScoreScale) -> _Side:
    cells = proportions(scale.bins, scale.alert_bin)
    found = {name: proportion_interval(counts, cells[name], sd) for name in RATES}
    enough = {}
    for name in RATES:
        among = cells[name].inside | cells[name].outside
        base = (counts * among).sum(axis=(-1, -2))
        enough[name] = enough_patients(base, noise_sd=sd * np.sqrt(among.sum()))
    events, total = counts[..., 1, :].sum(axis=-1), counts.sum(axis=(-1, -2))
    of_label = sd * np.sqrt(scale.bins)
    both = enough_patients(events, noise_sd=of_label)
    both &= enough_patients(total - events, noise_sd=of_label)
    everybody = enough_patients(total, noise_sd=of_label * np.sqrt(2))
    with np.errstate(all="ignore"):
        scored = ScoredCounts(counts, sd, scale.edges)
        found["excess_risk"] = scored.excess_risk()
        found["observed_to_expected"] = scored.observed_to_expected()
        found["auroc"] = auroc_interval(counts, sd)
    enough["auroc"], enough["observed_to_expected"] = both, both & scored.is_known
    enough["excess_risk"] = everybody & scored.is_known
    return _Side(counts, sd, found, enough)


def _judged(own: _Side, scale: ScoreScale) -> dict[str, Intervals]:
    total, events = own.counts.sum(axis=(-1, -2)), own.counts[..., 1, :].sum(axis=-1)
    of_label = own.sd * np.sqrt(scale.bins)
    widths = {"auroc": AUROC_WIDTH_MAX, "observed_to_expected": RATIO_WIDTH_MAX}
    found = {
        name: many.judged(own.enough[name], width_max=widths.get(name, RATE_WIDTH_MAX))
        for name, many in own.found.items()
    }
    found["patients"] = around(total, of_label * np.sqrt(2), low_min=0.0)
    found["events"] = around(events, of_label, low_min=0.0)
    return found


def _gaps(own: _Side, rest: _Side, scale: ScoreScale) -> dict[str, tuple[Intervals, Float]]:
    levels = own.counts.shape[-3]
    cells = proportions(scale.bins, scale.alert_bin)
    compared = np.arange(levels) < (1 if levels == 2 else levels)
    found = {}
    for name in CRITERIA:
        enough = own.enough[name] & rest.enough[name] & compared
        gap = difference(own.found[name], rest.found[name])
        gap = gap.judged(enough, width_max=RATE_WIDTH_MAX)
        error = gap.standard_error
        if name in cells:
            error = _error_without_gap(own, rest, cells[name])
        with np.errstate(all="ignore"):
            size = np.where(gap.value == 0, 0.0, np.abs(gap.value) / error)
        found[name] = (gap, np.where(np.isnan(gap.value), np.nan, 2 * ndtr(-size)))
    return found


def _error_without_gap(own: _Side, rest: _Side, cells: Proportion) -> Float:
    """Return the standard error of a difference of shares if both were the same share."""

    def parts(counts: Float) -> tuple[Float, Float]:
        inside = (counts * cells.inside).sum(axis=(-1, -2))
        return inside, inside + (counts * cells.outside).sum(axis=(-1, -2))

    (inside, base), (other_inside, other_base) = parts(own.counts), parts(rest.counts)
    with np.errstate(all="ignore"):
        share = np.clip((inside + other_inside) / (base + other_base), 0.0, 1.0)
        noise = (1 - share) ** 2 * cells.inside.sum() + share**2 * cells.outside.sum()
        chance = share * (1 - share)
        variance = chance / base + own.sd**2 * noise / base**2
        variance = variance + chance / other_base + rest.sd**2 * noise / other_base**2
        return np.asarray(np.sqrt(variance))
