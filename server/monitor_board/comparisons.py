"""How one report differs from its past, metric by metric, and whether that passes the tolerance."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import logit

from server.monitor_board.statistics.drift import ordered_drift, share_drift, unordered_drift
from server.monitor_board.statistics.estimates import (
    Estimates,
    changed_p_value,
    fallen_p_value,
    outside_p_value,
    weighted_mean,
)
from server.monitor_board.statistics.noisy_shares import (
    Contrast,
    Floats,
    NoisyShares,
    contrast_of,
    stratified,
)
from server.monitor_board.statistics.sequential import Compare, Comparison

_Z_95: Final = 1.959963984540054
_SHARE_MIN: Final = 1e-3
_EVENT: Final = 1


def distance_from_past(tolerance: float, gaps: Floats | None) -> Compare[NoisyShares]:
    """Compare distributions: by Wasserstein distance along `gaps`, or unordered without them."""

    def compare(report: NoisyShares, past: NoisyShares, *, is_pooled: bool) -> Comparison:
        contrast = _contrast(report, past, is_pooled=is_pooled)
        found = unordered_drift(contrast) if gaps is None else ordered_drift(contrast, gaps)
        is_beyond = found.effect > tolerance
        return Comparison(
            found.effect, found.effect, found.low, found.high, found.p_value, is_beyond
        )

    return compare


def share_against_past(tolerance: float, cell: int) -> Compare[NoisyShares]:
    """Compare one cell's share; the change is that of the share."""

    def compare(report: NoisyShares, past: NoisyShares, *, is_pooled: bool) -> Comparison:
        found = share_drift(_contrast(report, past, is_pooled=is_pooled), cell)
        share = _share(report, cell, is_pooled=is_pooled)
        is_beyond = np.abs(found.effect) > tolerance
        return _around(share, found.effect, found.p_value, is_beyond, bounds=(0.0, 1.0))

    return compare


def prevalence_against_past(logit_tolerance: float) -> Compare[NoisyShares]:
    """Compare the share of events; the change is in logits, as of a calibration intercept."""

    def compare(report: NoisyShares, past: NoisyShares, *, is_pooled: bool) -> Comparison:
        found = share_drift(_contrast(report, past, is_pooled=is_pooled), _EVENT)
        share = _share(report, _EVENT, is_pooled=is_pooled)
        change = _logit(share.value) - _logit(share.value - found.effect)
        is_beyond = np.abs(change) > logit_tolerance
        return _around(share, change, found.p_value, is_beyond, bounds=(0.0, 1.0))

    return compare


def fall_from_past(tolerance: float) -> Compare[Estimates]:
    """Compare AUROCs: only a fall counts."""

    def compare(report: Estimates, past: Estimates, *, is_pooled: bool) -> Comparison:
        report, past = _pooled(report, past) if is_pooled else (report, past)
        change = report.value - past.value
        p_value = fallen_p_value(report, past)
        return _around(report, change, p_value, change < -tolerance, bounds=(0.0, 1.0))

    return compare


def change_to_outside(low: float, high: float) -> Compare[Estimates]:
    """Compare with the past; what matters is where the quantity arrived."""

    def compare(report: Estimates, past: Estimates, *, is_pooled: bool) -> Comparison:
        report, past = _pooled(report, past) if is_pooled else (report, past)
        is_beyond = (report.value < low) | (report.value > high)
        return _around(report, report.value - past.value, changed_p_value(report, past), is_beyond)

    return compare


def outside(low: float, high: float) -> Compare[Estimates]:
    """Judge a quantity by itself: does it lie outside these bounds?"""

    def compare(report: Estimates, past: Estimates, *, is_pooled: bool) -> Comparison:
        report = _pooled(report, past)[0] if is_pooled else report
        is_beyond = (report.value < low) | (report.value > high)
        beyond = np.maximum(report.value - high, 0.0) + np.minimum(report.value - low, 0.0)
        return _around(report, beyond, outside_p_value(report, low, high), is_beyond)

    return compare


def _contrast(report: NoisyShares, past: NoisyShares, *, is_pooled: bool) -> Contrast:
    contrast = contrast_of(report, past)
    return stratified(contrast) if is_pooled else contrast


def _pooled(report: Estimates, past: Estimates) -> tuple[Estimates, Estimates]:
    weight = 1.0 / (report.variance + past.variance)
    return weighted_mean(report, weight), weighted_mean(past, weight)


def _share(report: NoisyShares, cell: int, *, is_pooled: bool) -> Estimates:
    """Return a cell's share with its variance, the noise of the total in it."""
    value = report.shares[..., cell]
    cells = report.shares.shape[-1]
    held = np.clip(value, 0.0, 1.0)
    noise = report.noise * ((1 - held) ** 2 + (cells - 1) * held**2)
    found = Estimates(value, np.maximum(held * (1 - held) * report.sampling + noise, 1e-12))
    return weighted_mean(found, 1.0 / report.sampling) if is_pooled else found


def _around(
    report: Estimates,
    change: Floats,
    p_value: Floats,
    is_beyond: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Comparison:
    reach = _Z_95 * np.sqrt(report.variance)
    return Comparison(
        np.clip(report.value, *bounds),
        change,
        np.clip(report.value - reach, *bounds),
        np.clip(report.value + reach, *bounds),
        p_value,
        is_beyond,
    )


def _logit(share: Floats) -> Floats:
    inside: Floats = logit(np.clip(share, _SHARE_MIN, 1 - _SHARE_MIN))
    return inside
