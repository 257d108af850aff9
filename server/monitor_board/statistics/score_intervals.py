"""Intervals of what compares outcomes with predictions: Brier score and calibration.

The bins' means are themselves estimated from the counts, so each gradient has two parts: with the
means held, and through them.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from server.monitor_board.statistics.intervals import Intervals, around, around_ratio, gradient_sd
from server.monitor_board.statistics.performance import (
    brier,
    calibration_fit,
    fit_equations,
    observed_to_expected,
)
from server.monitor_board.statistics.projection import Float
from server.monitor_board.statistics.score_scale import (
    bin_mean_slopes,
    bin_means,
    means_are_known,
)


class ScoredCounts:
    """Counts with the mean prediction of each bin and how it moves with the counts.

    `is_known` says whether the bins are fine enough for statistics of calibration.

    Args:
        counts: noisy counts [..., 2, bins].
        sd: of each cell's noise [...].
        edges: inner edges of the predicted probability.
    """

    def __init__(self, counts: Float, sd: Float | float, edges: tuple[float, ...]) -> None:
        self.counts, self.sd = counts, sd
        self.total = counts.sum(axis=-2)
        self.patients = self.total.sum(axis=-1)
        self.events = counts[..., 1, :]
        self.scores = bin_means(self.total, edges)
        self.is_known = means_are_known(self.total)
        self._moves = bin_mean_slopes(self.total, edges)

    def brier(self) -> Intervals:
        """Return the Brier score of the bins' means."""
        value = brier(self.counts, self.scores)
        squares = np.stack([self.scores**2, (1 - self.scores) ** 2], axis=-2)
        held = squares - value[..., None, None]
        by_score = 2 * (self.total * self.scores - self.events)
        error = self._error(held, by_score) / self.patients
        return around(value, error, low_min=0.0, high_max=1.0)

    def observed_to_expected(self) -> Intervals:
        """Return events over the sum of predictions."""
        value = observed_to_expected(self.counts, self.scores)
        expected = (self.total * self.scores).sum(axis=-1)
        error = self._error(
            self._outcome() - value[..., None, None] * self._predicted(),
            -value[..., None] * self.total,
        )
        return around_ratio(value, error / expected)

    def excess_risk(self) -> Intervals:
        """Return the share of events less the mean prediction: calibration in the large."""
        surplus = (self.events - self.total * self.scores).sum(axis=-1)
        value = surplus / self.patients
        held = self._outcome() - self._predicted() - value[..., None, None]
        return around(value, self._error(held, -self.total) / self.patients)

    def calibration(self) -> tuple[Intervals, Intervals]:
        """Return intercept and slope of the logistic recalibration."""
        intercept, slope = calibration_fit(self.counts, self.scores)
        x = logit(self.scores)
        inverse, residual = fit_equations(self.total, self.events, x, intercept, slope)
        probability = expit(intercept[..., None] + slope[..., None] * x)
        first = self._outcome() - probability[..., None, :]
        pull = -self.total * probability * (1 - probability) * slope[..., None]
        by_logit = 1 / (self.scores * (1 - self.scores))
        by_score = pull * by_logit, (residual + pull * x) * by_logit
        found = []
        for row, value in enumerate((intercept, slope)):
            a, b = inverse[..., row, 0, None], inverse[..., row, 1, None]
            held = first * (a + b * x)[..., None, :]
            error = self._error(held, a * by_score[0] + b * by_score[1])
            found.append(around(value, error))
        return found[0], found[1]

    def _outcome(self) -> Float:
        return np.asarray(np.zeros_like(self.counts) + np.asarray([[0.0], [1.0]]))

    def _predicted(self) -> Float:
        return self.scores[..., None, :]

    def _error(self, held: Float, by_score: Float) -> Float:
        """Return the standard error from the gradient at held scores and that by each score."""
        through = (by_score[..., None, :] @ self._moves)[..., 0, :]
        return gradient_sd(self.counts, held + through[..., None, :], self.sd)
