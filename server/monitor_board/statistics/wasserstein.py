"""Wasserstein-1 distance of binned values, and its p-value under noise without a simulation.

The distance is the sum of |D_b| over the inner edges, D_b the difference of the two distribution
functions at edge b times the distance of the bins' middles. If nothing changed, D is Gaussian with
a covariance that sampling and the stated noise give. Its sum is S, the difference of means; given
S = z sd(S), each |D_b| is D_b plus twice its negative part, whose mean and deviation are known in
closed form. So the distance is g(z) give or take a known spread, and P(distance > u) =
E[2 Q(g^-1(u))]. In the far tail this is the exact 2 Q(u / sd(S)). Measured against simulation:
tests/unit/server/monitor_board/test_wasserstein.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from server.monitor_board.statistics.noisy_shares import Contrast, Floats

_NEWTON_STEPS: Final = 6
_NODES: Final = ((0.0, 2 / 3), (3**0.5, 1 / 6), (-(3**0.5), 1 / 6))
"""Gauss and Hermite's rule of three points for a standard normal."""
_TAIL_Z: Final = 3.0
_TINY: Final = 1e-300


@dataclass(frozen=True)
class Distance:
    """A distance of a report from the past.

    Args:
        value: [...], in the unit of the gaps.
        square_if_same: [...], the mean of its square if nothing had changed.
        p_value: [...], how often it is as large if nothing changed.
    """

    value: Floats
    square_if_same: Floats
    p_value: Floats

    @property
    def effect(self) -> Floats:
        """The distance less what sampling and noise alone add to its square; at least 0."""
        excess: Floats = np.sqrt(np.maximum(self.value**2 - self.square_if_same, 0.0))
        return excess


def wasserstein(contrast: Contrast, gaps: Floats) -> Distance:
    """Return the distance of two binned distributions.

    Args:
        contrast: [..., bins], in the order of the values.
        gaps: [bins - 1] or [..., bins - 1], between the middles of neighbouring bins.
    """
    value = (gaps * np.abs(np.cumsum(contrast.difference, axis=-1)[..., :-1])).sum(axis=-1)
    null = _edge_differences(contrast, gaps)
    return Distance(value, null.square, _p_value(value, null, _coarseness(contrast, gaps)))


@dataclass(frozen=True)
class _Null:
    """Edge differences if nothing changed, oriented so that their sum varies most.

    Args:
        sd: [...], of the sum.
        slope: [..., edges], of each on the sum in standard deviations.
        rest: [..., edges], standard deviation of each given the sum.
        square: [...], mean square of the sum of magnitudes.
    """

    sd: Floats
    slope: Floats
    rest: Floats
    square: Floats


def _edge_differences(contrast: Contrast, gaps: Floats) -> _Null:
    below = np.cumsum(contrast.expected, axis=-1)[..., :-1]
    variance = np.cumsum(contrast.variance, axis=-1)
    total, variance = variance[..., -1], variance[..., :-1]
    edges = np.arange(below.shape[-1])
    # Cov(D_a, D_b) for a <= b, of cumulated independent errors less their common total.
    covariance = variance[..., np.minimum.outer(edges, edges)]
    cross = below[..., :, None] * variance[..., None, :]
    covariance = covariance - cross - np.swapaxes(cross, -1, -2)
    covariance += below[..., :, None] * below[..., None, :] * total[..., None, None]
    covariance *= gaps[..., :, None] * gaps[..., None, :]
    own = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), _TINY)
    square = _mean_square(covariance, np.sqrt(own))
    sign = _widest_signs(covariance)
    with_sum = sign * np.einsum("...ab,...b->...a", covariance, sign)
    sd = np.sqrt(np.maximum(with_sum.sum(axis=-1), _TINY))
    slope = with_sum / sd[..., None]
    rest = np.sqrt(np.maximum(own - slope**2, 1e-12 * own))
    return _Null(sd, slope, rest, square)


def _mean_square(covariance: Floats, sd: Floats) -> Floats:
    """Return E (sum |D|)^2; E |X Y| of two normals is 2/pi (sqrt(1 - r^2) + r asin r) sd sd."""
    scale = sd[..., :, None] * sd[..., None, :]
    r = np.clip(covariance / scale, -1.0, 1.0)
    products = scale * (np.sqrt(1.0 - r**2) + r * np.arcsin(r))
    square: Floats = products.sum(axis=(-2, -1)) * 2 / np.pi
    return square


def _widest_signs(covariance: Floats) -> Floats:
    """Return the signs whose sum varies most; nearly always all ones, the difference of means."""
    sign = np.ones(covariance.shape[:-1])
    for _ in range(2):
        sign = np.where(np.einsum("...ab,...b->...a", covariance, sign) < 0, -1.0, 1.0)
    return sign


def _coarseness(contrast: Contrast, gaps: Floats) -> Floats:
    """Return the most that one patient can move the difference of means."""
    width = np.broadcast_to(gaps, (*contrast.difference.shape[:-1], gaps.shape[-1])).sum(axis=-1)
    largest: Floats = width / contrast.patients
    return largest


def _p_value(value: Floats, null: _Null, coarseness: Floats) -> Floats:
    z, spread = _solve(value, null)
    p_value = np.zeros_like(value)
    for node, weight in _NODES:
        at = z if node == 0.0 else _solve(value + node * spread, null)[0]
        # A tail of counts is heavier than a normal one; Bernstein's bound from 3 deviations on.
        excess = np.maximum(at - _TAIL_Z, 0.0) * coarseness / null.sd / 3
        p_value += weight * 2 * ndtr(-at / np.sqrt(1.0 + excess))
    return np.clip(p_value, _TINY, 1.0)


def _solve(value: Floats, null: _Null) -> tuple[Floats, Floats]:
    """Return z at which the mean distance is `value`, and the distance's deviation there.

    The mean is convex in z and at least z sd, so Newton's steps fall from the right to the root.
    """
    z = np.maximum(value, 0.0) / null.sd
    spread = np.zeros_like(z)
    for step in range(_NEWTON_STEPS):
        scaled = null.slope * z[..., None]
        ratio = scaled / null.rest
        tail, density = ndtr(-ratio), np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
        negative = null.rest * density - scaled * tail
        if step == 0:
            square = (null.rest**2 + scaled**2) * tail - scaled * null.rest * density
            spread = 2 * np.sqrt(np.maximum(square - negative**2, 0.0)).sum(axis=-1)
        mean = null.sd * z + 2 * negative.sum(axis=-1)
        rise = null.sd - 2 * (null.slope * tail).sum(axis=-1)
        z = np.maximum(z - (mean - value) / np.maximum(rise, 1e-3 * null.sd), 0.0)
    return z, spread
