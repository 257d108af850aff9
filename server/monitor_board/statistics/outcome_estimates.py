"""AUROC, calibration and rates of many noisy tensors at once, with variances by the delta method.

For tests only: estimates are left as the noise makes them. A projection to non-negative counts has a
bias that depends on the number of patients, and a report of another size than its reference would
be a false alarm. What a page shows is in `performance`.

A statistic of counts c with gradient g has the variance sum g^2 (c + sd^2): sampling like Poisson
(exact to first order, as each statistic is one of ratios) and the DP noise.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from server.monitor_board.statistics.estimates import Estimates
from server.monitor_board.statistics.noisy_shares import Floats

_NEWTON_STEPS: Final = 25
_STEP_MAX: Final = 1.0
_SLOPE_MAX: Final = 20.0


def auroc_estimates(counts: Floats, sd: Floats) -> Estimates:
    """Return AUROCs of [sites, label, score bins]; ties within a bin count one half."""
    negative, positive = counts[:, 0], counts[:, 1]
    negatives, positives = negative.sum(axis=-1), positive.sum(axis=-1)
    below = np.cumsum(negative, axis=-1) - negative / 2
    above = positives[:, None] - np.cumsum(positive, axis=-1) + positive / 2
    pairs = negatives * positives
    value = (positive * below).sum(axis=-1) / pairs
    gradient = np.stack(
        [
            above / pairs[:, None] - (value / negatives)[:, None],
            below / pairs[:, None] - (value / positives)[:, None],
        ],
        axis=1,
    )
    return Estimates(value, _variance(gradient, counts, sd))


def calibration_estimates(
    counts: Floats, sd: Floats, logits: Floats
) -> tuple[Estimates, Estimates]:
    """Return slopes and intercepts of the logistic recalibration, NaN where there is no fit.

    The slope is of the outcome on the score's logit; the intercept is with the slope held at 1
    (calibration in the large). Cox 1958; Van Calster et al. 2016.

    Args:
        counts: [sites, label, score bins].
        sd: [sites].
        logits: [score bins], of the score that stands for each bin.
    """
    line = np.stack([np.ones_like(logits), logits])
    fit, inverse, risk = _fit(counts, line, np.zeros_like(logits))
    slope = _with_variance(fit[:, 1], inverse[:, 1], line, risk, counts, sd)
    level = np.ones((1, len(logits)))
    fit, inverse, risk = _fit(counts, level, logits)
    intercept = _with_variance(fit[:, 0], inverse[:, 0], level, risk, counts, sd)
    return slope, intercept


def rate_estimates(part: Floats, rest: Floats, sd: Floats, cells: tuple[int, int]) -> Estimates:
    """Return part / (part + rest).

    Args:
        part, rest: [sites], disjoint sums of cells.
        sd: [sites], of each cell.
        cells: how many cells each sum has.
    """
    total = part + rest
    value = part / total
    noise = np.square(sd)
    variance = (1 - value) ** 2 * (np.maximum(part, 0) + cells[0] * noise) + value**2 * (
        np.maximum(rest, 0) + cells[1] * noise
    )
    return Estimates(value, variance / total**2)


def difference(one: Estimates, other: Estimates) -> Estimates:
    """Return the difference of independent estimates."""
    return Estimates(one.value - other.value, one.variance + other.variance)


def _variance(gradient: Floats, counts: Floats, sd: Floats) -> Floats:
    cells = np.maximum(counts, 0.0) + np.square(sd)[:, None, None]
    variance: Floats = (gradient**2 * cells).sum(axis=(1, 2))
    return variance


def _fit(counts: Floats, design: Floats, offset: Floats) -> tuple[Floats, Floats, Floats]:
    """Solve sum (positive - total risk) x = 0 by Newton's method.

    Returns:
        coefficients [sites, terms], inverse information [sites, terms, terms], risk [sites, bins].
    """
    total = counts.sum(axis=1)
    fit = np.zeros((len(counts), len(design)))
    if len(design) > 1:
        fit[:, 1] = 1.0
    risk, inverse = _state(fit, design, offset, total)
    for _ in range(_NEWTON_STEPS):
        score = (counts[:, 1] - total * risk) @ design.T
        step = np.einsum("sij,sj->si", inverse, score)
        fit = np.clip(fit + np.clip(step, -_STEP_MAX, _STEP_MAX), -_SLOPE_MAX, _SLOPE_MAX)
        risk, inverse = _state(fit, design, offset, total)
    is_at_rest = np.abs(step).max(axis=1) < 1e-6
    fit = np.where(is_at_rest[:, None], fit, np.nan)
    return fit, inverse, risk


def _state(fit: Floats, design: Floats, offset: Floats, total: Floats) -> tuple[Floats, Floats]:
    risk = 1.0 / (1.0 + np.exp(-(fit @ design + offset)))
    information = np.einsum("sb,ib,jb->sij", total * risk * (1 - risk), design, design)
    # Noise can make the information of a small site indefinite: no fit, not a wrong one.
    is_definite = np.linalg.eigvalsh(information)[:, 0] > 1e-9
    safe = np.where(is_definite[:, None, None], information, np.eye(len(design)))
    inverse = np.where(is_definite[:, None, None], np.linalg.inv(safe), np.nan)
    return risk, inverse


def _with_variance(
    value: Floats, inverse_row: Floats, design: Floats, risk: Floats, counts: Floats, sd: Floats
) -> Estimates:
    per_bin = inverse_row @ design
    gradient = np.stack([-risk * per_bin, (1 - risk) * per_bin], axis=1)
    return Estimates(value, _variance(gradient, counts, sd))
