"""Exact figures agree with scikit-learn and with slow references written from the definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from simulations.exact_performance import (
    Placements,
    area_difference,
    calibration_slope,
    mean_area,
    mean_difference,
    measure,
    placements,
)

Floats = npt.NDArray[np.float64]


def drawn(seed: int, patients: int = 200, signal: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Return two models' probabilities of the same patients, and their outcomes."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    y = (rng.random(patients) < 1 / (1 + np.exp(-risk))).astype(np.float64)
    first, second = (1 / (1 + np.exp(-signal * risk - rng.normal(size=patients))) for _ in range(2))
    return first, second, y


def area_of(probabilities: Floats, y: Floats) -> Placements:
    found = placements(probabilities, y)
    assert found is not None
    return found


def slow_covariance(first: Floats, second: Floats, y: Floats) -> float:
    """DeLong et al. 1988, equations 4 to 6, by two loops over patients."""

    def components(scores: Floats) -> tuple[list[float], list[float]]:
        cases, others = scores[y == 1], scores[y == 0]
        wins = [[1.0 if c > o else 0.5 if c == o else 0.0 for o in others] for c in cases]
        by_case = [sum(row) / len(others) for row in wins]
        by_other = [sum(row[k] for row in wins) / len(cases) for k in range(len(others))]
        return by_case, by_other

    total = 0.0
    for one, other in zip(components(first), components(second), strict=True):
        total += float(np.cov(one, other, ddof=1)[0, 1]) / len(one)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_area_is_scikit_learns_and_its_covariances_are_delongs(seed: int, digits: int) -> None:
    first, second, y = drawn(seed, patients=40)
    first, second = first.round(digits), second.round(digits)  # ties
    if not 1 < y.sum() < len(y) - 1:
        return
    one, other = area_of(first, y), area_of(second, y)
    assert one.value == pytest.approx(roc_auc_score(y, first), abs=1e-12)
    assert one.covariance(one) == pytest.approx(slow_covariance(first, first, y), abs=1e-12)
    assert one.covariance(other) == pytest.approx(slow_covariance(first, second, y), abs=1e-12)


def test_the_interval_of_a_difference_is_that_of_patients_drawn_again() -> None:
    first, second, y = drawn(3, patients=600)
    difference, variance = area_difference(area_of(first, y), area_of(second, y))
    rng = np.random.default_rng(4)
    again = []
    for _ in range(500):
        rows = rng.integers(len(y), size=len(y))
        again.append(roc_auc_score(y[rows], first[rows]) - roc_auc_score(y[rows], second[rows]))
    assert difference == pytest.approx(roc_auc_score(y, first) - roc_auc_score(y, second))
    assert np.sqrt(variance) == pytest.approx(np.std(again), rel=0.15)


def test_one_patient_with_the_outcome_tells_no_difference() -> None:
    y = np.array([0.0, 0.0, 0.0, 1.0])
    first, second = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.1, 0.2, 0.3, 0.0])
    found = mean_difference([(area_of(first, y), area_of(second, y))])
    assert found is not None and found.value == 1.0
    assert found.low < 0 < found.high


def test_a_mean_over_sites_has_the_mean_of_their_variances_over_their_number() -> None:
    sites = [drawn(seed, patients=90) for seed in range(4)]
    areas = [area_of(first, y) for first, _, y in sites]
    found = mean_area(areas)
    assert found is not None
    error = np.sqrt(sum(slow_covariance(first, first, y) for first, _, y in sites)) / 4
    assert found.value == pytest.approx(np.mean([roc_auc_score(y, p) for p, _, y in sites]))
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error, rel=1e-6)
    assert mean_area([]) is None and mean_difference([]) is None


def test_brier_accuracy_and_calibration_slope_are_scikit_learns() -> None:
    probabilities, _, y = drawn(5, patients=3000, signal=2.0)
    found = measure(probabilities, y)
    assert found.brier is not None and found.calibration_slope is not None
    assert found.brier.value == pytest.approx(brier_score_loss(y, probabilities))
    assert found.accuracy == pytest.approx(np.mean((probabilities >= 0.5) == y))
    logit = np.log(probabilities / (1 - probabilities))[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit, y)
    assert found.calibration_slope.value == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.calibration_slope.high < 1  # a model that doubles the log-odds is too extreme


def test_what_cannot_be_told_is_not_told() -> None:
    all_well = measure(np.array([0.1, 0.2]), np.zeros(2))
    assert all_well.area is None and all_well.calibration_slope is None
    assert measure(np.zeros(0), np.zeros(0)).brier is None
    y = np.repeat([0.0, 1.0], 50)
    assert calibration_slope(np.full(100, 0.3), y) is None  # one score for all
    assert calibration_slope(np.where(y == 1, 0.9, 0.1), y) is None  # separated
