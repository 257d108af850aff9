"""The expected calibration error without what noise and chance add to it.

Even a perfectly calibrated model shows a calibration error, because bins are counted with chance
and noise: at 10,000 patients and epsilon 1 about 0.009, as much as miscalibration that matters. So
the error is read backwards: of all true errors those are in the interval under which the shown one
is not surprising. Bins' gaps are taken as normal with known variance, so the shown error is a sum
of folded normals, here approximated by the gamma distribution of the same mean and variance.

No error is below 0, so the chance of 5 % to miss is moved there: for a true error of 0 all of it is
that the shown error is too large, and up to the error that a perfect model shows on average, half
of it moves to the other side. So no interval is empty or ends at 0, whatever chance shows.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, gammaincinv, logit, ndtr

from server.monitor_board.statistics.intervals import Intervals, Z
from server.monitor_board.statistics.performance import calibration_fit
from server.monitor_board.statistics.projection import Float, project_counts

_GRID = np.linspace(0.0, 1.0, 41)
_SPREAD = 0.2


def calibration_error_interval(counts: Float, scores: Float, sd: Float) -> Intervals:
    """Return the calibration error that makes the shown one its mean, and its 95 % interval.

    Args:
        counts: noisy counts [..., 2, bins].
        scores: each bin's mean [..., bins].
        sd: of each cell's noise [...].
    """
    total = counts.sum(axis=-2)
    patients = np.maximum(total.sum(axis=-1, keepdims=True), 1.0)
    gaps = (counts[..., 1, :] - total * scores) / patients
    likely = project_counts(counts, cell_axes=2) + (np.asarray(sd) ** 2)[..., None, None]
    # A quarter of a patient keeps an empty bin's variance from being nothing.
    spread = (1 - scores) ** 2 * (likely[..., 1, :] + 0.25) + scores**2 * (likely[..., 0, :] + 0.25)
    variance = spread / patients**2
    likely_profile, own = _profiles(counts, scores, gaps, variance, patients)
    by_noise = np.sqrt(variance)
    even = by_noise / by_noise.sum(axis=-1, keepdims=True)
    shown = np.abs(gaps).sum(axis=-1)
    value, low, high = _limits(shown, variance, likely_profile)
    # The more an error is spread over bins, the less of it shows, and the other way round.
    low = np.minimum(low, _limits(shown, variance, (likely_profile + own) / 2)[1])
    spread_out = (1 - _SPREAD) * likely_profile + _SPREAD * even
    high = np.maximum(high, _limits(shown, variance, spread_out)[2])
    return Intervals(value, low, high, (high - low) / (2 * Z))


def _limits(shown: Float, variance: Float, profile: Float) -> tuple[Float, Float, Float]:
    """Return the errors for which the shown one is average, too large, and too small."""
    largest = shown + 4 * np.sqrt(variance.sum(axis=-1))
    errors = _GRID * largest[..., None]
    mean, second = _folded(errors[..., None] * profile[..., None, :], variance[..., None, :])
    shape, scale = mean**2 / second, second / mean
    below = 0.025 * np.minimum(errors / mean[..., :1], 1.0)
    return (
        _invert(errors, mean, shown),
        _invert(errors, gammaincinv(shape, 0.95 + below) * scale, shown),
        _invert(errors, gammaincinv(shape, below) * scale, shown),
    )


def _profiles(
    counts: Float, scores: Float, gaps: Float, variance: Float, patients: Float
) -> tuple[Float, Float]:
    """Return how the true error is likely divided among bins, and by each bin's own gap alone.

    The bins' own gaps would spread it over bins that are only noisy. So they are shrunk towards
    what a logistic recalibration leaves, as far as noise explains their distance from it (James and
    Stein 1961); alone, each towards nothing. Both sum to 1.
    """
    intercept, slope = calibration_fit(counts, scores)
    intercept = np.clip(np.nan_to_num(intercept, nan=0.0), -4.0, 4.0)
    slope = np.clip(np.nan_to_num(slope, nan=1.0), -1.0, 3.0)
    recalibrated = expit(intercept[..., None] + slope[..., None] * logit(scores))
    smooth = project_counts(counts.sum(axis=-2)) * (recalibrated - scores) / patients
    rest = gaps - smooth
    distance = (rest**2 / variance).sum(axis=-1, keepdims=True)
    freedom = max(gaps.shape[-1] - 2, 1)
    kept = np.maximum(1 - freedom / np.maximum(distance, 1e-300), 0.0)
    alone = np.abs(gaps) * np.maximum(1 - variance / np.maximum(gaps**2, 1e-300), 0.0)
    never_nothing = 1e-9 * np.sqrt(variance)
    likely, own = np.abs(smooth + kept * rest) + never_nothing, alone + never_nothing
    return likely / likely.sum(axis=-1, keepdims=True), own / own.sum(axis=-1, keepdims=True)


def _folded(mean: Float, variance: Float) -> tuple[Float, Float]:
    """Return mean and variance of the sum over bins of the magnitudes of normals."""
    sd = np.sqrt(variance)
    size = mean / sd
    folded = sd * np.sqrt(2 / np.pi) * np.exp(-(size**2) / 2) + mean * (1 - 2 * ndtr(-size))
    return folded.sum(axis=-1), (mean**2 + variance - folded**2).sum(axis=-1)


def _invert(errors: Float, curve: Float, shown: Float) -> Float:
    """Return where the rising curve [..., grid] over the errors reaches the shown value [...]."""
    reached = curve >= shown[..., None]
    place = np.where(reached.any(axis=-1), reached.argmax(axis=-1), curve.shape[-1] - 1)
    before = np.maximum(place - 1, 0)

    def at(values: Float, index: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> Float:
        return np.take_along_axis(values, index[..., None], axis=-1)[..., 0]

    rise = at(curve, place) - at(curve, before)
    share = np.clip((shown - at(curve, before)) / np.where(rise > 0, rise, 1.0), 0.0, 1.0)
    start = at(errors, before)
    return np.asarray(np.where(place == 0, 0.0, start + share * (at(errors, place) - start)))
