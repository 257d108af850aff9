"""What one feature alone tells of the outcome, against scikit-learn's area under the ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from site_client.quality.leakage import (
    AUROC_SUSPICIOUS,
    LEVEL_ROWS_MIN,
    SoleAuroc,
    categorical_auroc,
    numeric_auroc,
)

# Few different values, so that ties and missing values are frequent.
VALUES = st.one_of(st.just(np.nan), st.integers(-3, 3).map(float), st.floats(-1e300, 1e300))
ROWS = st.lists(st.tuples(VALUES, st.booleans()), min_size=25, max_size=60).filter(
    lambda rows: 10 <= sum(outcome for _, outcome in rows) <= len(rows) - 10
)


def either_way(outcome: np.ndarray, score: np.ndarray) -> float:
    area = roc_auc_score(outcome, score)
    return float(max(area, 1 - area))


def of_rows(values: np.ndarray, outcome: np.ndarray) -> SoleAuroc:
    return numeric_auroc(np.sort(values[outcome]), np.sort(values[~outcome]))


@given(ROWS)
def test_a_numeric_features_areas_are_scikit_learns(rows: list[tuple[float, bool]]) -> None:
    values, outcome = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    # Ranks alone count, and no float is too large for them.
    ranks = np.searchsorted(np.unique(values[~np.isnan(values)]), values).astype(float)
    is_missing, found = np.isnan(values), of_rows(values, outcome)
    assert found.missing == pytest.approx(either_way(outcome, is_missing))
    below, above = np.where(is_missing, -1, ranks), np.where(is_missing, 1e6, ranks)
    assert found.both == pytest.approx(max(either_way(outcome, below), either_way(outcome, above)))
    recorded = outcome[~is_missing]
    if min(recorded.sum(), (~recorded).sum()) < 10:
        assert found.value is None
    else:
        assert found.value == pytest.approx(either_way(recorded, ranks[~is_missing]))
    assert (found.rows, found.recorded) == (len(rows), len(recorded))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=3, max_size=6))
def test_a_categorical_features_area_is_that_of_its_levels_prevalences(
    cells: list[tuple[int, int]],
) -> None:
    ones, zeros = np.array([item[0] for item in cells]), np.array([item[1] for item in cells])
    found = categorical_auroc(ones, zeros)
    small = ones + zeros < LEVEL_ROWS_MIN
    prevalence = ones / np.maximum(ones + zeros, 1)
    prevalence[small] = ones[small].sum() / max((ones + zeros)[small].sum(), 1)
    score = np.concatenate([np.repeat(prevalence, ones), np.repeat(prevalence, zeros)])
    outcome = np.repeat([True, False], [ones.sum(), zeros.sum()])
    if min(ones.sum(), zeros.sum()) < 10:
        assert found.both is None
    else:
        assert found.both == pytest.approx(either_way(outcome, score))


def test_a_feature_that_is_the_outcome_is_suspicious_in_either_direction() -> None:
    outcome = np.arange(100) % 3 == 0
    for values in (outcome * 1.0, -1.0 * outcome):
        assert of_rows(values, outcome).value == 1.0
        assert of_rows(values, outcome).is_suspicious


def test_a_feature_recorded_only_because_of_the_outcome_is_suspicious_by_its_absence() -> None:
    outcome = np.arange(100) % 3 == 0
    found = of_rows(np.where(outcome, 5.0, np.nan), outcome)
    assert found.missing == 1.0 and found.value is None and found.is_suspicious


def test_few_outcomes_are_not_assessed_however_well_they_are_told() -> None:
    outcome = np.arange(100) < 9
    found = of_rows(outcome * 1.0, outcome)
    assert found.largest is None and not found.is_suspicious


def test_a_level_of_one_patient_each_tells_nothing() -> None:
    ones, zeros = np.array([1, 0] * 20 + [0]), np.array([0, 1] * 20 + [0])
    assert categorical_auroc(ones, zeros).both == pytest.approx(0.5)


def test_a_good_feature_is_not_a_leak() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.random(2000) < 0.3
    found = of_rows(rng.normal(outcome * 1.5, 1), outcome)
    assert found.value is not None and 0.8 < found.value < AUROC_SUSPICIOUS
    assert not found.is_suspicious
