"""What a site releases for scaling, and how it scales: against numpy on the patients themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.privacy.mechanism import GaussianVector
from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from common.study.scaling import (
    MOMENTS,
    MomentBounds,
    Scaling,
    identity,
    model_shapes,
    numeric_columns,
    sensitivity,
)
from server.scaling_estimate import estimate_scaling
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import is_recorded, scale
from site_client.training.randomness import Randomness
from site_client.training.scaling_moments import release_moments
from tests.lib.plans import make_plan

SCALING = {"kind": "dp_mean_variance"}
PLAN = make_plan(scaling=SCALING)
ROWS_PLAN = make_plan(scaling=SCALING, privacy__rows_per_patient_max=3)
BINNED_PLAN = make_plan(
    scaling=SCALING,
    features__1__time_bins=3,
    features__1__window_days=363,
    model={"kind": "gru", "width": 2},
)
EXACT = GaussianVector(0.0)


def make_patients(plan: StudyPlan, count: int, seed: int) -> FeatureMatrix:
    """Return patients with values in a small part of the bounds, a third of some missing."""
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan)
    rows = plan.privacy.rows_per_patient_max
    shape: tuple[int, ...] = (count,) if rows == 1 else (count, rows)
    x = np.clip(rng.normal(0.3, 0.1, (*shape, len(columns))), -1, 1).astype(np.float32)
    weight = None
    if rows > 1:
        held = rng.integers(1, rows + 1, count)
        there = np.arange(rows) < held[:, None]
        weight = np.where(there, 1 / held[:, None], 0).astype(np.float32)
        x[~there] = 0
    for feature in numeric_columns(plan):
        for value, indicator in zip(feature.values, feature.indicators, strict=False):
            missing = rng.random(shape) < 1 / 3
            if weight is not None:
                missing &= weight > 0
            x[..., indicator] = missing
            x[..., value] = np.where(missing, 0, x[..., value])
    y = rng.integers(0, 2, shape).astype(np.float32)
    return FeatureMatrix(columns, x, y, rng.integers(0, 10**6, count), weight)


def _release(patients: FeatureMatrix, plan: StudyPlan, **changes: object) -> np.ndarray:
    fields = {
        "mechanism": EXACT,
        "declared_cohort_size": 10_000,
        "randomness": Randomness.reproducible(1),
    }
    return release_moments(patients, plan, **{**fields, **changes})[MOMENTS]  # type: ignore[arg-type]


def _of_each_patient(patients: FeatureMatrix, values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Slow reference: the mean over each patient's recorded values, of patients who have one."""
    flat, mask = values.reshape(len(patients.y), -1), there.reshape(len(patients.y), -1)
    found = [row[seen].mean() for row, seen in zip(flat, mask, strict=True) if seen.any()]
    return np.array(found)


@pytest.mark.parametrize("plan", [PLAN, ROWS_PLAN, BINNED_PLAN])
def test_without_noise_mean_and_deviation_are_those_of_the_pooled_training_patients(
    plan: StudyPlan,
) -> None:
    sites = [make_patients(plan, count, seed) for seed, count in enumerate((900, 400, 1500))]
    trained = [split(site, plan)[0] for site in sites]
    sums = np.sum([_release(item, plan).astype(np.float64) for item in trained], axis=0)
    found = estimate_scaling(sums, plan, noise_multiplier=0.0, sites=3)
    for place, feature in enumerate(numeric_columns(plan)):
        first, second = [], []
        for item in trained:
            x = item.x[..., feature.values].astype(np.float64)
            there = is_recorded(item, feature)
            first.append(_of_each_patient(item, x, there))
            second.append(_of_each_patient(item, x * x, there))
        mean, square = np.concatenate(first).mean(), np.concatenate(second).mean()
        assert abs(found.mean[place] - mean) < 1e-6
        assert abs(found.deviation[place] - np.sqrt(square - mean**2)) < 1e-6


def test_one_row_a_patient_gives_the_common_mean_and_standard_deviation() -> None:
    patients = make_patients(PLAN, 3000, 7)
    found = estimate_scaling(
        _release(patients, PLAN).astype(np.float64), PLAN, noise_multiplier=0.0, sites=1
    )
    age, pressure = (patients.x[:, item.values[0]] for item in numeric_columns(PLAN))
    there = patients.x[:, numeric_columns(PLAN)[1].indicators[0]] == 0
    for place, values in enumerate((age, pressure[there])):
        assert abs(found.mean[place] - values.astype(np.float64).mean()) < 1e-6
        assert abs(found.deviation[place] - values.astype(np.float64).std()) < 1e-6


def test_the_noise_has_the_deviation_that_is_charged_and_lies_on_a_public_grid() -> None:
    nobody = make_patients(PLAN, 0, 1)
    mechanism = GaussianVector(8.0)
    deviation = 8.0 * sensitivity(2)
    drawn = np.stack(
        [
            _release(nobody, PLAN, mechanism=mechanism, randomness=Randomness.from_system())
            for _ in range(2000)
        ]
    ).reshape(-1)
    assert stats.kstest(drawn / deviation, "norm").pvalue > 1e-6
    step = 2.0 ** (np.floor(np.log2(deviation)) - 20)
    np.testing.assert_array_equal(drawn / step, np.round(drawn / step))


def test_a_site_with_more_patients_than_it_declares_weighs_as_much_as_it_declared() -> None:
    patients = make_patients(PLAN, 600, 3)
    whole, fitted = (
        _release(patients, PLAN, declared_cohort_size=size).astype(np.float64)
        for size in (10_000, 300)
    )
    assert fitted[2].max() == 300
    np.testing.assert_allclose(fitted / fitted[2], whole / whole[2], rtol=1e-6)


def test_what_an_honest_site_releases_is_always_within_the_bounds() -> None:
    for seed in range(30):
        for count, declared in ((0, 20), (30, 20), (500, 500)):
            sent = _release(
                make_patients(PLAN, count, seed),
                PLAN,
                mechanism=GaussianVector(3.0),
                declared_cohort_size=declared,
                randomness=Randomness.from_system(),
            )
            bounds = MomentBounds(2, declared, 3.0)
            assert bounds.are_plausible(sent)
            assert np.linalg.norm(sent) <= bounds.norm_max


@pytest.mark.parametrize("plan", [PLAN, ROWS_PLAN, BINNED_PLAN])
def test_scaling_moves_recorded_values_only_and_clips_them(plan: StudyPlan) -> None:
    patients = make_patients(plan, 400, 5)
    scaling = Scaling(np.array([0.3, 0.2], np.float32), np.array([0.1, 0.01], np.float32))
    scaled = scale(patients, plan, scaling)
    numeric = [place for item in numeric_columns(plan) for place in item.values]
    others = [place for place in range(len(patients.columns)) if place not in numeric]
    np.testing.assert_array_equal(scaled.x[..., others], patients.x[..., others])
    assert np.abs(scaled.x[..., numeric]).max() == 4.0
    for number, feature in enumerate(numeric_columns(plan)):
        there = is_recorded(patients, feature)
        values = patients.x[..., feature.values]
        z = np.clip((values - scaling.mean[number]) / scaling.deviation[number], -4, 4)
        np.testing.assert_array_equal(scaled.x[..., feature.values][there], z[there])
        never = ~there.any(axis=-1)
        assert (scaled.x[..., feature.values][never] == 0).all()


def test_a_time_bin_without_a_value_has_the_scaled_value_of_the_bin_before() -> None:
    columns = feature_columns(BINNED_PLAN)
    pressure = numeric_columns(BINNED_PLAN)[1]
    x = np.zeros((1, len(columns)), dtype=np.float32)
    x[0, pressure.values] = [0.0, 0.5, 0.5]
    x[0, pressure.indicators] = [1, 0, 1]
    one = FeatureMatrix(columns, x, np.zeros(1, np.float32), np.zeros(1, np.int64))
    scaling = Scaling(np.full(2, 0.25, np.float32), np.full(2, 0.125, np.float32))
    assert scale(one, BINNED_PLAN, scaling).x[0, pressure.values].tolist() == [0.0, 2.0, 2.0]


def test_the_identity_and_no_scaling_change_nothing() -> None:
    patients = make_patients(PLAN, 100, 5)
    np.testing.assert_array_equal(scale(patients, PLAN, identity(PLAN)).x, patients.x)
    assert scale(patients, make_plan(), None) is patients


def test_a_plan_without_scaling_has_a_model_of_parameters_only() -> None:
    assert set(model_shapes(make_plan())) == {"linear.weight", "linear.bias"}
    more = {"scaling.mean": (2,), "scaling.sd": (2,)}
    assert model_shapes(PLAN) == model_shapes(make_plan()) | more
