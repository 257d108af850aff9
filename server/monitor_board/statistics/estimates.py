"""Estimates with known variances, as they follow each other, and tests that they have changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from server.monitor_board.statistics.noisy_shares import Floats, Places

_TINY: Final = 1e-300


@dataclass(frozen=True)
class Estimates:
    """Independent estimates of one quantity, one for each site.

    Args:
        value: [sites].
        variance: [sites], of sampling and DP noise together; positive.
    """

    value: Floats
    variance: Floats

    def at(self, places: Places) -> Estimates:
        """Return those of some sites."""
        return Estimates(self.value[places], self.variance[places])

    def updated(self, places: Places, other: Estimates) -> Estimates:
        """Return these with the `other` at some sites."""
        value, variance = self.value.copy(), self.variance.copy()
        value[places], variance[places] = other.value, other.variance
        return Estimates(value, variance)

    def pooled_with(self, report: Estimates) -> Estimates:
        """Return the means weighted by inverse variances; see `NoisyShares.pooled_with`."""
        weight = report.variance / (self.variance + report.variance)
        return Estimates(
            weight * self.value + (1.0 - weight) * report.value,
            self.variance * weight,
        )


def weighted_mean(estimates: Estimates, weight: Floats) -> Estimates:
    """Return the mean over sites as estimates of [1]; the weights, [sites], need not sum to 1."""
    share = weight / weight.sum()
    return Estimates(np.array([share @ estimates.value]), np.array([share**2 @ estimates.variance]))


def changed_p_value(report: Estimates, past: Estimates) -> Floats:
    """Return the two-sided p-value that nothing changed."""
    p_value: Floats = np.maximum(2 * ndtr(-np.abs(_z(report, past))), _TINY)
    return p_value


def fallen_p_value(report: Estimates, past: Estimates) -> Floats:
    """Return the one-sided p-value that the quantity is no less than in the past."""
    p_value: Floats = np.maximum(ndtr(_z(report, past)), _TINY)
    return p_value


def outside_p_value(report: Estimates, low: float, high: float) -> Floats:
    """Return the p-value that the quantity lies from `low` to `high`: the largest p-value there."""
    sd = np.sqrt(report.variance)
    beyond = np.maximum(report.value - high, low - report.value)
    p_value: Floats = ndtr(-beyond / sd) + ndtr(-(beyond + high - low) / sd)
    return np.clip(p_value, _TINY, 1.0)


def _z(report: Estimates, past: Estimates) -> Floats:
    z: Floats = (report.value - past.value) / np.sqrt(report.variance + past.variance)
    return z
