"""How well a model does on held-out patients who may be looked at: exact figures with intervals.

No figure here is differentially private. Intervals are of the patients' sampling alone: DeLong's
for the area under the curve (DeLong, DeLong and Clarke-Pearson 1988, by Sun and Xu 2014), the
normal one of a mean for the Brier score, Wald's for the calibration slope (Cox 1958).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.protocol.arrays import Parameters
from common.study.columns import ColumnPlaces
from common.study.plan import CategoricalFeature, StudyPlan
from common.study.scaling import split_model
from simulations.auroc import mean_ranks
from site_client.features.matrix import FeatureMatrix
from site_client.features.scaled import scale
from site_client.training.evaluation import score

Z_95: Final = 1.959963984540054
_NEWTON_STEPS_MAX: Final = 50
_SLOPE_PATIENTS_MIN: Final = 5
"""Patients of each outcome below which no calibration slope is fitted."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Placements:
    """What each patient adds to an area under the curve; areas compare by their differences.

    Args:
        value: the area.
        positive: [patients with the outcome], the share of the others that each scores above.
        negative: [patients without it], the share of those with it that score above each.
    """

    value: float
    positive: Floats
    negative: Floats

    def covariance(self, other: Placements) -> float:
        """Return the covariance of two areas of the same patients in the same order."""
        return _covariance(self.positive, other.positive) + _covariance(
            self.negative, other.negative
        )

    @property
    def estimate(self) -> Estimate:
        """The area with its interval, cut at 0 and 1."""
        half = Z_95 * math.sqrt(max(self.covariance(self), 0.0))
        return Estimate(self.value, max(0.0, self.value - half), min(1.0, self.value + half))


@dataclass(frozen=True)
class Performance:
    """One model on some patients.

    Args:
        patients, events: how many, and how many of them with the outcome.
        area: None where all have one outcome.
        accuracy: at a probability of one half; None without patients.
        brier: None without patients.
        calibration_slope: None where it cannot be fitted.
    """

    patients: int
    events: int
    area: Placements | None
    accuracy: float | None
    brier: Estimate | None
    calibration_slope: Estimate | None


def predict(plan: StudyPlan, parameters: Parameters, patients: FeatureMatrix) -> Floats:
    """Return the model's probabilities [patients].

    Args:
        plan: of the study.
        parameters: of the model, with its scaling if it has one.
        patients: of whom the first sample is scored, as in the study's own evaluation.
    """
    trained, scaling = split_model(parameters)
    first = scale(patients, plan, scaling).first_samples()
    return np.asarray(score(plan, trained, first.x), dtype=np.float64)


def outcomes(patients: FeatureMatrix) -> Floats:
    """Return 0 or 1 for each patient's first sample."""
    return np.asarray(patients.first_samples().y, dtype=np.float64)


def measure(probabilities: Floats, y: Floats) -> Performance:
    """Return how well probabilities [patients] tell outcomes [patients]."""
    if len(y) == 0:
        return Performance(0, 0, None, None, None, None)
    return Performance(
        patients=len(y),
        events=int(y.sum()),
        area=placements(probabilities, y),
        accuracy=float(np.mean((probabilities >= 0.5) == (y == 1))),
        brier=_mean((probabilities - y) ** 2),
        calibration_slope=calibration_slope(probabilities, y),
    )


def placements(probabilities: Floats, y: Floats) -> Placements | None:
    """Return the area under the ROC curve by patients; None where all have one outcome."""
    positive, negative = probabilities[y == 1], probabilities[y == 0]
    if len(positive) == 0 or len(negative) == 0:
        return None
    together = mean_ranks(np.concatenate([positive, negative]))
    above = (together[: len(positive)] - mean_ranks(positive)) / len(negative)
    below = 1 - (together[len(positive) :] - mean_ranks(negative)) / len(positive)
    return Placements(float(above.mean()), above, below)


def mean_area(areas: Sequence[Placements]) -> Estimate | None:
    """Return the mean of areas of different patients; None of no area."""
    if not areas:
        return None
    return _of_mean([area.value for area in areas], [area.covariance(area) for area in areas])


def area_difference(first: Placements, second: Placements) -> tuple[float, float]:
    """Return first - second of the same patients, and its variance."""
    gains = (first.positive - second.positive, first.negative - second.negative)
    # Of one patient's gain, which lies between -1 and 1, nothing tells the spread: the widest.
    variance = sum(_covariance(gain, gain, widest=1.0) for gain in gains)
    return first.value - second.value, variance


def mean_difference(pairs: Sequence[tuple[Placements, Placements]]) -> Estimate | None:
    """Return the mean over sites of first - second, each pair of a site's own patients."""
    if not pairs:
        return None
    found = [area_difference(first, second) for first, second in pairs]
    return _of_mean([value for value, _ in found], [variance for _, variance in found])


def calibration_slope(probabilities: Floats, y: Floats) -> Estimate | None:
    """Return the slope of a logistic regression of the outcome on the model's log-odds.

    1 is well calibrated, below 1 too extreme, above 1 too timid. None with too few patients of an
    outcome, where all log-odds are one, or where the outcomes are separated.
    """
    if min(y.sum(), len(y) - y.sum()) < _SLOPE_PATIENTS_MIN:
        return None
    safe = np.clip(probabilities, 1e-12, 1 - 1e-12)
    logit = np.log(safe / (1 - safe))
    spread = float(logit.std())
    if spread < 1e-9:
        return None
    design = np.stack([np.ones_like(logit), (logit - logit.mean()) / spread], axis=1)
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS_MAX):
        risk = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        information = design.T @ (design * (risk * (1 - risk))[:, None])
        if np.linalg.det(information) < 1e-9:
            return None
        step = np.linalg.solve(information, design.T @ (y - risk))
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            error = math.sqrt(float(np.linalg.inv(information)[1, 1]))
            return _around(weights[1] / spread, error / spread)
    return None


def levels_of(plan: StudyPlan, patients: FeatureMatrix) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Return who is in each level of the plan's fairness groups, by `feature=level`."""
    places = ColumnPlaces(plan)
    first = patients.first_samples()
    grouped = {item.feature for item in plan.fairness_groups}
    return {
        name: first.x[:, places.of(feature, name)[-1]] > 0
        for feature in plan.features
        if isinstance(feature, CategoricalFeature) and feature.name in grouped
        for name in (f"{feature.name}={level}" for level in feature.levels)
    }


def _mean(values: Floats) -> Estimate:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return _around(float(values.mean()), error)


def _of_mean(values: Sequence[float], variances: Sequence[float]) -> Estimate:
    return _around(float(np.mean(values)), math.sqrt(sum(variances)) / len(values))


def _around(value: float, error: float) -> Estimate:
    return Estimate(float(value), float(value - Z_95 * error), float(value + Z_95 * error))


def _covariance(first: Floats, second: Floats, *, widest: float = 0.25) -> float:
    if len(first) < 2:
        # One patient of an outcome says nothing about the spread: the widest there could be.
        return widest
    products = (first - first.mean()) * (second - second.mean())
    return float(products.sum() / (len(first) - 1) / len(first))
