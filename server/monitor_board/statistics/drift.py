"""Tests that shares have changed, at their stated error rate whatever the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import gammaincc, gammainccinv, ndtr

from server.monitor_board.statistics.noisy_shares import Contrast, Floats
from server.monitor_board.statistics.wasserstein import wasserstein

_TAIL_Z: Final = 3.0
_TINY: Final = 1e-300
_Z_95: Final = 1.959963984540054


@dataclass(frozen=True)
class Drift:
    """How far a report is from the past.

    Args:
        effect: [...], less what sampling and noise alone add on average; the unit is the test's.
        low, high: [...], 95 % interval of the true effect; never too narrow.
        p_value: [...], two-sided.
    """

    effect: Floats
    low: Floats
    high: Floats
    p_value: Floats


def ordered_drift(contrast: Contrast, gaps: Floats) -> Drift:
    """Test bins of a number; the effect is the Wasserstein distance in the unit of the gaps.

    The interval is the distance give or take what noise and sampling reach in 95 of 100 cases: the
    triangle inequality says no more than that lies between the measured and the true distance.

    Args:
        contrast: [..., bins] in rising order.
        gaps: [..., bins - 1] between the middles of neighbours, in reference deviations.
    """
    found = wasserstein(contrast, gaps)
    # The norm of a Gaussian error: below 1.96 of its root mean square in 95 % of cases, or more.
    reach = _Z_95 * np.sqrt(found.square_if_same)
    return Drift(
        found.effect, np.maximum(found.value - reach, 0.0), found.value + reach, found.p_value
    )


def unordered_drift(contrast: Contrast) -> Drift:
    """Test categories; the effect is Cohen's w, comparable to a shift in deviations.

    Chi-square with B - 1 degrees of freedom of (d - t q) / sd at the t where that is least: the
    error of the common total lies along the expected shares q and carries no information. Without
    that term the law is chi-square only for even shares: at 1,000 patients and noise 18, a feature
    with most patients in one category alarmed 2 to 3.5 times in 100 instead of once.

    Cohen 1988, section 7.2: w^2 = sum (p - q)^2 / q.
    """
    cells = contrast.difference.shape[-1]
    p_value = gammaincc((cells - 1) / 2, _chi_square(contrast) / 2)
    squares = contrast.difference**2 / contrast.expected
    # Mean and variance of w^2 if nothing changed, each cell's total taken off; then Satterthwaite.
    ratios = contrast.variance / contrast.expected
    mean = np.maximum(ratios.sum(axis=-1) - contrast.variance.sum(axis=-1), _TINY)
    freedom = np.maximum(mean**2 / np.maximum((ratios**2).sum(axis=-1), _TINY), 0.5)
    reach = np.sqrt(mean / freedom * 2 * gammainccinv(freedom / 2, 0.05))
    value = np.sqrt(squares.sum(axis=-1))
    return Drift(
        np.sqrt(np.maximum(value**2 - mean, 0.0)),
        np.maximum(value - reach, 0.0),
        value + reach,
        np.maximum(p_value, _TINY),
    )


def share_drift(contrast: Contrast, cell: int) -> Drift:
    """Test one cell's share against all others; the effect is the signed change of the share."""
    expected, variance = contrast.expected, contrast.variance
    own = expected[..., cell]
    others = variance.sum(axis=-1) - variance[..., cell]
    sd = np.sqrt(variance[..., cell] * (1 - own) ** 2 + own**2 * others)
    change = contrast.difference[..., cell]
    return Drift(
        change, change - _Z_95 * sd, change + _Z_95 * sd, two_sided(change, sd, contrast.patients)
    )


def two_sided(change: Floats, sd: Floats, patients: Floats | float) -> Floats:
    """Return the p-value of a change of a share whose counts have a heavier tail than a normal.

    From three deviations on, the variance grows by what Bernstein's inequality asks for a patient's
    weight of 1 / `patients`: a p-value of 1e-9 must mean that, for a few patients in a rare cell.
    """
    z = np.abs(change) / sd
    inflated = 1.0 + np.maximum(z - _TAIL_Z, 0.0) / (3 * patients * sd)
    p_value: Floats = np.maximum(2 * ndtr(-z / np.sqrt(inflated)), _TINY)
    return p_value


def _chi_square(contrast: Contrast) -> Floats:
    difference, expected = contrast.difference, contrast.expected
    sd = np.sqrt(contrast.variance)
    excess = np.maximum(np.abs(difference) - _TAIL_Z * sd, 0.0)
    variance = contrast.variance + excess / (3 * contrast.patients[..., None])
    along = (expected * difference / variance).sum(axis=-1)
    least = (difference**2 / variance).sum(axis=-1)
    statistic: Floats = least - along**2 / (expected**2 / variance).sum(axis=-1)
    return np.maximum(statistic, 0.0)
