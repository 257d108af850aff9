"""The performance that outcome reports show, each number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.monitor_board.statistics.calibration_error import calibration_error_interval
from server.monitor_board.statistics.intervals import (
    Estimate,
    Intervals,
    around,
    enough_patients,
    gradient_sd,
    proportion_interval,
)
from server.monitor_board.statistics.noisy_counts import SHOWN_COUNT_MIN, NoisyCounts
from server.monitor_board.statistics.performance import (
    auroc,
    net_benefit,
    net_benefit_weights,
    proportions,
)
from server.monitor_board.statistics.projection import Float
from server.monitor_board.statistics.score_intervals import ScoredCounts
from server.monitor_board.statistics.score_scale import ScoreScale

Enough = npt.NDArray[np.bool_]

# An interval wider than half the range in which a statistic is read says nothing.
AUROC_WIDTH_MAX = 0.25
BRIER_WIDTH_MAX = 0.125
ERROR_WIDTH_MAX = 0.125
INTERCEPT_WIDTH_MAX = 2.0
SLOPE_WIDTH_MAX = 1.0
RATIO_WIDTH_MAX = 1.5
RATE_WIDTH_MAX = 0.5

_AT_ONCE = 1_000


@dataclass(frozen=True)
class Performance:
    """What one outcome report, or the reference, says of the model.

    Args:
        patients, events: with the interval of their noise alone.
        calibration_error: expected calibration error, corrected for noise and chance.
        calibration_intercept, calibration_slope: of the outcome on the score's logit; 0 and 1 are
            perfect.
        observed_to_expected: events over the sum of predictions.
        alert_rate, sensitivity, specificity, ppv, npv, net_benefit: at the plan's threshold.
    """

    patients: Estimate
    events: Estimate
    auroc: Estimate
    brier: Estimate
    calibration_error: Estimate
    calibration_intercept: Estimate
    calibration_slope: Estimate
    observed_to_expected: Estimate
    prevalence: Estimate
    alert_rate: Estimate
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    net_benefit: Estimate


def estimate_performance(
    tensors: Sequence[NoisyCounts], scale: ScoreScale
) -> tuple[Performance, ...]:
    """Return the performance of each tensor `overall` [2, bins]; many at once are fast."""
    found: list[Performance] = []
    for start in range(0, len(tensors), _AT_ONCE):
        part = tensors[start : start + _AT_ONCE]
        counts = np.stack([np.asarray(tensor.values, dtype=np.float64) for tensor in part])
        sd = np.asarray([tensor.sd for tensor in part], dtype=np.float64)
        named = performance_intervals(counts, sd, scale)
        columns = {name: many.estimates() for name, many in named.items()}
        found += [
            Performance(**{name: column[place] for name, column in columns.items()})
            for place in range(len(part))
        ]
    return tuple(found)


def performance_intervals(counts: Float, sd: Float, scale: ScoreScale) -> dict[str, Intervals]:
    """Return `Performance`'s fields as arrays, nan where data do not suffice.

    Args:
        counts: noisy counts [reports, 2, bins].
        sd: of each cell's noise [reports].
    """
    bins = scale.bins
    total, events = counts.sum(axis=(-1, -2)), counts[..., 1, :].sum(axis=-1)
    alerts = counts[..., scale.alert_bin :].sum(axis=(-1, -2))
    everybody = enough_patients(total, noise_sd=sd * np.sqrt(2 * bins))
    both = enough_patients(events, noise_sd=sd * np.sqrt(bins))
    both &= enough_patients(total - events, noise_sd=sd * np.sqrt(bins))
    found = {
        "patients": around(total, sd * np.sqrt(2 * bins), low_min=0.0).judged(
            total >= 0, width_max=np.inf
        ),
        "events": around(events, sd * np.sqrt(bins), low_min=0.0).judged(
            total >= 0, width_max=np.inf
        ),
        "auroc": auroc_interval(counts, sd).judged(both, width_max=AUROC_WIDTH_MAX),
        "net_benefit": _net_benefit_interval(counts, sd, scale).judged(
            everybody & (alerts >= SHOWN_COUNT_MIN), width_max=RATE_WIDTH_MAX
        ),
    }
    found |= _score_intervals(counts, sd, scale, everybody, both)
    for name, cells in proportions(bins, scale.alert_bin).items():
        if name in Performance.__dataclass_fields__:
            among = cells.inside | cells.outside
            base = (counts * among).sum(axis=(-1, -2))
            enough = enough_patients(base, noise_sd=sd * np.sqrt(among.sum()))
            interval = proportion_interval(counts, cells, sd)
            found[name] = interval.judged(enough, width_max=RATE_WIDTH_MAX)
    return found


def auroc_interval(counts: Float, sd: Float | float) -> Intervals:
    """Return AUROC with its interval (DeLong et al. 1988 on bins, with noise), not yet judged."""
    without, events = counts[..., 0, :], counts[..., 1, :]
    sums = events.sum(axis=-1, keepdims=True), without.sum(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        area = auroc(counts)
        beaten = (np.cumsum(without, axis=-1) - without / 2) / sums[1]
        beating = 1 - (np.cumsum(events, axis=-1) - events / 2) / sums[0]
        of_events = (beaten - area[..., None]) / sums[0]
        of_others = (beating - area[..., None]) / sums[1]
        error = gradient_sd(counts, np.stack([of_others, of_events], axis=-2), sd)
    return around(area, error, low_min=0.0, high_max=1.0)


def _score_intervals(
    counts: Float, sd: Float, scale: ScoreScale, everybody: Enough, both: Enough
) -> dict[str, Intervals]:
    with np.errstate(all="ignore"):
        scored = ScoredCounts(counts, sd, scale.edges)
        intercept, slope = scored.calibration()
        ratio = scored.observed_to_expected()
        error = calibration_error_interval(counts, scored.scores, sd)
        known = both & scored.is_known
        error = error.judged(everybody & scored.is_known, width_max=ERROR_WIDTH_MAX)
        return {
            "brier": scored.brier().judged(everybody, width_max=BRIER_WIDTH_MAX),
            "calibration_error": error.judged(
                everybody & scored.is_known, width_max=ERROR_WIDTH_MAX
            ),
            "calibration_intercept": intercept.judged(known, width_max=INTERCEPT_WIDTH_MAX),
            "calibration_slope": slope.judged(known, width_max=SLOPE_WIDTH_MAX),
            "observed_to_expected": ratio.judged(known, width_max=RATIO_WIDTH_MAX),
        }


def _net_benefit_interval(counts: Float, sd: Float, scale: ScoreScale) -> Intervals:
    weights = net_benefit_weights(scale.bins, scale.alert_bin, scale.threshold)
    with np.errstate(all="ignore"):
        value = net_benefit(counts, scale.alert_bin, scale.threshold)
        gradient = (weights - value[..., None, None]) / counts.sum(axis=(-1, -2), keepdims=True)
        return around(value, gradient_sd(counts, gradient, sd))
