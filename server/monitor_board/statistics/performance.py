"""A model's performance, calculated from counts by label and score bin.

Every function takes counts [..., 2, bins] (label 0 first) and works along the leading axes. On
exact counts each is what scikit-learn gives for the same scores rounded to their bins. Noise goes
straight in: rates, AUROC, Brier score and the calibration equations are sums of counts or ratios of
such, so noise of mean zero leaves them right on average, which cutting off negative counts would
not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from server.monitor_board.statistics.projection import Float

Mask = npt.NDArray[np.bool_]
_STEPS_MAX = 40


@dataclass(frozen=True)
class Proportion:
    """A share of patients as two disjoint sets of cells: `inside` / (`inside` + `outside`).

    Args:
        inside, outside: boolean [2, bins].
    """

    inside: Mask
    outside: Mask

    def of(self, counts: Float) -> Float:
        """Return the share [...] in counts [..., 2, bins]; nan where nobody was counted."""
        inside = (counts * self.inside).sum(axis=(-1, -2))
        base = inside + (counts * self.outside).sum(axis=(-1, -2))
        return np.asarray(np.divide(inside, base, out=np.full_like(base, np.nan), where=base != 0))


def proportions(bins: int, alert_bin: int) -> dict[str, Proportion]:
    """Return prevalence, alert rate, sensitivity, specificity, PPV, NPV and false positive rate.

    Args:
        bins: number of score bins.
        alert_bin: place of the lowest bin in which the model alerts.
    """
    event = np.zeros((2, bins), dtype=np.bool_)
    event[1] = True
    alert = np.zeros((2, bins), dtype=np.bool_)
    alert[:, alert_bin:] = True
    return {
        "prevalence": Proportion(event, ~event),
        "alert_rate": Proportion(alert, ~alert),
        "sensitivity": Proportion(event & alert, event & ~alert),
        "specificity": Proportion(~event & ~alert, ~event & alert),
        "ppv": Proportion(event & alert, ~event & alert),
        "npv": Proportion(~event & ~alert, event & ~alert),
        "false_positive_rate": Proportion(~event & alert, ~event & ~alert),
    }


def auroc(counts: Float) -> Float:
    """Return the area under the ROC curve; two patients in one bin count as half a win."""
    without, events = counts[..., 0, :], counts[..., 1, :]
    lower = np.cumsum(without, axis=-1) - without / 2
    return np.asarray((events * lower).sum(axis=-1) / (events.sum(axis=-1) * without.sum(axis=-1)))


def brier(counts: Float, scores: Float) -> Float:
    """Return the mean squared difference between a bin's score [..., bins] and the outcome."""
    squared = counts[..., 0, :] * scores**2 + counts[..., 1, :] * (1 - scores) ** 2
    return np.asarray(squared.sum(axis=-1) / counts.sum(axis=(-1, -2)))


def observed_to_expected(counts: Float, scores: Float) -> Float:
    """Return the number of events over the sum of predictions."""
    return np.asarray(counts[..., 1, :].sum(axis=-1) / (counts.sum(axis=-2) * scores).sum(axis=-1))


def calibration_fit(counts: Float, scores: Float) -> tuple[Float, Float]:
    """Return intercept and slope of the logistic regression of the outcome on the score's logit.

    Cox 1958; found by Newton's method on the bins. nan where that finds no solution, as noise may
    leave none.
    """
    x = np.broadcast_to(logit(scores), counts[..., 0, :].shape)
    total, events = counts.sum(axis=-2), counts[..., 1, :]
    intercept, slope = np.zeros(total.shape[:-1]), np.ones(total.shape[:-1])
    found = np.zeros(total.shape[:-1], dtype=np.bool_)
    with np.errstate(all="ignore"):
        for _ in range(_STEPS_MAX):
            inverse, residual = fit_equations(total, events, x, intercept, slope)
            first, second = residual.sum(axis=-1), (residual * x).sum(axis=-1)
            step = inverse @ np.stack([first, second], axis=-1)[..., None]
            step = np.clip(step[..., 0], -2.0, 2.0)
            intercept, slope = intercept + step[..., 0], slope + step[..., 1]
            found = (np.abs(step) < 1e-10).all(axis=-1)
            if found.all():
                break
    return np.where(found, intercept, np.nan), np.where(found, slope, np.nan)


def fit_equations(
    total: Float, events: Float, x: Float, intercept: Float, slope: Float
) -> tuple[Float, Float]:
    """Return the inverse information [..., 2, 2] and the residuals [..., bins] of that fit."""
    probability = expit(intercept[..., None] + slope[..., None] * x)
    weight = total * probability * (1 - probability)
    a, b, c = weight.sum(axis=-1), (weight * x).sum(axis=-1), (weight * x * x).sum(axis=-1)
    determinant = a * c - b * b
    determinant = np.where((determinant > 0) & (a > 0), determinant, np.nan)
    inverse = np.stack([np.stack([c, -b], axis=-1), np.stack([-b, a], axis=-1)], axis=-2)
    return inverse / determinant[..., None, None], events - total * probability


def net_benefit(counts: Float, alert_bin: int, threshold: float) -> Float:
    """Return true positives less false positives at the threshold's odds, per patient.

    Vickers and Elkin 2006.
    """
    weights = net_benefit_weights(counts.shape[-1], alert_bin, threshold)
    return np.asarray((counts * weights).sum(axis=(-1, -2)) / counts.sum(axis=(-1, -2)))


def net_benefit_weights(bins: int, alert_bin: int, threshold: float) -> Float:
    """Return what one patient in each cell [2, bins] adds to the net benefit's numerator."""
    weights = np.zeros((2, bins))
    weights[1, alert_bin:] = 1.0
    weights[0, alert_bin:] = -threshold / (1 - threshold)
    return weights
