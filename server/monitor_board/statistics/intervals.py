"""Intervals that hold chance and the noise of privacy alike, and when there are none.

The variance of a statistic with the gradient g over cells is sum g^2 (c + sd^2): each count c
varies as a Poisson count around its mean, and sd is the noise of its cell. No resampling is needed:
the noise's deviation is known. `benchmarks/monitoring_intervals.py` measures how often they hold
the truth, and how often those of a parametric bootstrap do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from server.monitor_board.statistics.noisy_counts import SHOWN_COUNT_MIN
from server.monitor_board.statistics.performance import Proportion
from server.monitor_board.statistics.projection import Float, project_counts

Z = float(ndtri(0.975))
# A denominator's noise may be as large as this share of it, in standard deviations.
NOISE_SHARE_MAX = 0.25


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, or all None: insufficient data."""

    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None

    @property
    def is_sufficient(self) -> bool:
        """Whether there is a number."""
        return self.value is not None


INSUFFICIENT = Estimate(None, None, None, None)


@dataclass(frozen=True)
class Intervals:
    """Many estimates of one statistic: arrays of one shape, not yet judged."""

    value: Float
    low: Float
    high: Float
    standard_error: Float

    def judged(self, enough: npt.NDArray[np.bool_], *, width_max: float) -> Intervals:
        """Return the same with nan where the data do not suffice.

        Args:
            enough: whether the denominators are, see `enough_patients`.
            width_max: a wider interval says nothing.
        """
        with np.errstate(invalid="ignore"):
            said = enough & np.isfinite(self.value) & (self.high - self.low <= width_max)
        parts = (self.value, self.low, self.high, self.standard_error)
        return Intervals(*(np.where(said, part, np.nan) for part in parts))

    def estimates(self) -> list[Estimate]:
        """Return one estimate for each element, in order."""
        parts = (self.value, self.low, self.high, self.standard_error)
        columns = [np.asarray(part).ravel().tolist() for part in parts]
        return [
            INSUFFICIENT if math.isnan(row[0]) else Estimate(*row)
            for row in zip(*columns, strict=True)
        ]


def enough_patients(patients: Float, *, noise_sd: Float | float) -> npt.NDArray[np.bool_]:
    """Return whether a noisy number of patients is known well enough to divide by."""
    return (patients >= SHOWN_COUNT_MIN) & (noise_sd <= NOISE_SHARE_MAX * patients)


def gradient_sd(counts: Float, gradient: Float, sd: Float | float) -> Float:
    """Return a statistic's standard error from its gradient.

    Args:
        counts: noisy counts [..., 2, bins].
        gradient: of the statistic over these cells, same shape.
        sd: of each cell's noise [...].
    """
    likely = project_counts(counts, cell_axes=2)
    spread = likely + np.asarray(sd)[..., None, None] ** 2
    return np.asarray(np.sqrt((spread * gradient**2).sum(axis=(-1, -2))))


def around(
    value: Float, error: Float, *, low_min: float = -np.inf, high_max: float = np.inf
) -> Intervals:
    """Return value -/+ 1.96 standard errors, cut at the statistic's own bounds."""
    return Intervals(
        np.clip(value, low_min, high_max),
        np.clip(value - Z * error, low_min, high_max),
        np.clip(value + Z * error, low_min, high_max),
        np.broadcast_to(error, value.shape),
    )


def around_ratio(value: Float, error: Float) -> Intervals:
    """Return the interval of a positive ratio, symmetric in its logarithm."""
    with np.errstate(all="ignore"):
        positive = np.where(value > 0, value, np.nan)
        factor = np.exp(Z * error / positive)
    return Intervals(positive, positive / factor, positive * factor, error)


def proportion_interval(counts: Float, cells: Proportion, sd: Float | float) -> Intervals:
    """Return Wilson's interval with the noise of both parts of the share in it.

    It holds every r for which (A - r B)^2 <= z^2 Var(A - r B), with A of B patients inside, and
    Var = B r (1 - r) + sd^2 ((1 - r)^2 a + r^2 b), where a and b cells make A and B - A. Without
    noise that is Wilson 1927, without chance Fieller 1954.

    Args:
        counts: noisy counts [..., 2, bins].
        sd: of each cell's noise [...].
    """
    inside = (counts * cells.inside).sum(axis=(-1, -2))
    base = inside + (counts * cells.outside).sum(axis=(-1, -2))
    variance = np.asarray(sd, dtype=np.float64) ** 2
    of_inside, of_outside = cells.inside.sum() * variance, cells.outside.sum() * variance
    with np.errstate(all="ignore"):
        share = np.clip(inside / base, 0.0, 1.0)
        square = base**2 + Z**2 * (base - of_inside - of_outside)
        half = inside * base + Z**2 * (base / 2 - of_inside)
        root = np.sqrt(np.maximum(half**2 - square * (inside**2 - Z**2 * of_inside), 0.0))
        low = np.clip((half - root) / square, 0.0, 1.0)
        high = np.clip((half + root) / square, 0.0, 1.0)
        chance = np.maximum(base, 0.0) * share * (1 - share)
        noise = (1 - share) ** 2 * of_inside + share**2 * of_outside
        error = np.sqrt(chance + noise) / base
        bounded = (base > 0) & (square > 0)
    parts = (share, np.minimum(low, share), np.maximum(high, share), error)
    return Intervals(*(np.where(bounded, part, np.nan) for part in parts))


def difference(first: Intervals, second: Intervals) -> Intervals:
    """Return first - second of different patients (Newcombe 1998, method 10; Donner, Zou 2012)."""
    with np.errstate(invalid="ignore"):
        value = first.value - second.value
        below = np.hypot(first.value - first.low, second.high - second.value)
        above = np.hypot(first.high - first.value, second.value - second.low)
        error = np.hypot(first.standard_error, second.standard_error)
        return Intervals(value, value - below, value + above, error)
