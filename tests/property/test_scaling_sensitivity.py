"""One patient more or less moves what a site releases for scaling by no more than is charged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from common.study.scaling import numeric_columns, sensitivity
from site_client.features.matrix import FeatureMatrix
from site_client.training.scaling_moments import FINE_BITS, feature_moments
from tests.lib.plans import make_plan

ONE_ROW = make_plan()
THREE_ROWS = make_plan(privacy__rows_per_patient_max=3)
BINNED = make_plan(
    features__1__time_bins=4, features__1__window_days=364, model={"kind": "gru", "width": 2}
)
EXTREMES = (-1.0, 1.0, 0.0, 0.5**0.5, 1e-30, -1e-45, 0.3, 7.0, -np.inf, np.nan)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[StudyPlan, FeatureMatrix]:
    """Return any patients at all, those that no honest matrix holds among them."""
    plan = draw(st.sampled_from([ONE_ROW, THREE_ROWS, BINNED]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    patients = draw(st.integers(1, 12))
    rows = plan.privacy.rows_per_patient_max
    columns = feature_columns(plan)
    shape = (patients, len(columns)) if rows == 1 else (patients, rows, len(columns))
    is_extreme = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    x = np.where(is_extreme, rng.choice(EXTREMES, shape), rng.uniform(-1, 1, shape))
    is_missing = rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    for feature in numeric_columns(plan):
        for place in feature.indicators:
            x[..., place] = is_missing[..., place]
    weight = None
    if rows > 1:
        counts = rng.integers(1, rows + 1, patients)
        there = np.arange(rows) < counts[:, None]
        weight = np.where(there, 1 / counts[:, None], 0).astype(np.float32)
    y = rng.integers(0, 2, shape[:-1]).astype(np.float32)
    part = rng.integers(0, 10**6, patients)
    return plan, FeatureMatrix(columns, x.astype(np.float32), y, part, weight)


def _sums(matrix: FeatureMatrix, plan: StudyPlan) -> np.ndarray:
    return np.stack([feature_moments(matrix, item).sum(axis=0) for item in numeric_columns(plan)])


def _without(matrix: FeatureMatrix, patient: int) -> FeatureMatrix:
    keep = np.arange(len(matrix.y)) != patient
    return replace(
        matrix,
        x=matrix.x[keep],
        y=matrix.y[keep],
        part=matrix.part[keep],
        weight=None if matrix.weight is None else matrix.weight[keep],
    )


@settings(deadline=None, max_examples=300)
@given(matrices(), st.integers(0, 11))
def test_neighbouring_patients_differ_by_at_most_the_sensitivity(
    drawn: tuple[StudyPlan, FeatureMatrix], patient: int
) -> None:
    plan, matrix = drawn
    patient %= len(matrix.y)
    # Whole numbers: the comparison has no rounding of its own.
    change = (_sums(matrix, plan) - _sums(_without(matrix, patient), plan)).reshape(-1).tolist()
    squared = sum(int(item) ** 2 for item in change)
    bound = round(4 * sensitivity(len(numeric_columns(plan))) ** 2)
    assert 4 * squared <= bound << 2 * FINE_BITS


@settings(deadline=None, max_examples=100)
@given(matrices())
def test_the_sums_do_not_depend_on_the_order_of_patients(
    drawn: tuple[StudyPlan, FeatureMatrix],
) -> None:
    plan, matrix = drawn
    order = np.random.default_rng(len(matrix.y)).permutation(len(matrix.y))
    turned = replace(
        matrix,
        x=matrix.x[order],
        y=matrix.y[order],
        part=matrix.part[order],
        weight=None if matrix.weight is None else matrix.weight[order],
    )
    np.testing.assert_array_equal(_sums(matrix, plan), _sums(turned, plan))


def test_the_bound_is_met_by_a_patient_at_the_ends_of_all_ranges() -> None:
    """So the proof is tight: no smaller noise would do."""
    columns = feature_columns(ONE_ROW)
    x = np.zeros((1, len(columns)), dtype=np.float32)
    for feature in numeric_columns(ONE_ROW):
        x[:, feature.values] = -1.0
    only = FeatureMatrix(columns, x, np.zeros(1, np.float32), np.zeros(1, np.int64))
    length = math.sqrt(float(np.square(_sums(only, ONE_ROW) * 2.0**-FINE_BITS).sum()))
    assert math.isclose(length, sensitivity(len(numeric_columns(ONE_ROW))), rel_tol=1e-15)
