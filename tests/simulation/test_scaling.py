"""Scaling in a simulated study: what it is worth where public bounds are far too wide."""

from __future__ import annotations

import numpy as np
import pytest

from common.privacy.calibration import plan_mechanisms
from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from common.study.scaling import numeric_columns, split_model
from simulations.federation import FederationResult, run_in_memory
from simulations.randomness import reproducible
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from tests.lib.plans import make_plan

CENTRES, SPREAD = (0.4, -0.3), 0.04
SITES, PATIENTS = 4, 1500


def _plan(**changes: object) -> StudyPlan:
    return make_plan(
        training__rounds=8,
        training__local_steps=5,
        training__sampling_probability=0.2,
        training__optimizer={"kind": "sgd", "learning_rate": 1.0},
        training__update_norm_max=100.0,
        evaluation__releases=1,
        privacy__epsilon=2.0,
        privacy__delta=1e-5,
        **changes,
    )


def _patients(plan: StudyPlan, seed: int) -> FeatureMatrix:
    """Return patients whose values fill a fiftieth of the plan's public bounds."""
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan)
    x = np.zeros((PATIENTS, len(columns)), dtype=np.float32)
    z = rng.normal(size=(PATIENTS, 2))
    for number, feature in enumerate(numeric_columns(plan)):
        x[:, feature.values[0]] = CENTRES[number] + SPREAD * z[:, number]
    x[:, columns.index("sex=female")] = rng.integers(0, 2, PATIENTS)
    x[:, columns.index("sex=male")] = 1 - x[:, columns.index("sex=female")]
    y = (rng.random(PATIENTS) < 1 / (1 + np.exp(-1.5 * (z[:, 0] - z[:, 1])))).astype(np.float32)
    return FeatureMatrix(columns, x, y, rng.integers(0, 10**6, PATIENTS))


def _run(plan: StudyPlan, seed: int) -> FederationResult:
    sites = [
        VirtualSite(f"site-{number}", PATIENTS, _patients(plan, 100 * seed + number))
        for number in range(SITES)
    ]
    return run_in_memory(plan, sites, randomness=reproducible(seed))


@pytest.mark.slow
def test_where_bounds_are_far_too_wide_scaling_learns_better_at_the_same_epsilon() -> None:
    plain, scaled = _plan(), _plan(scaling={"kind": "dp_mean_variance"})
    without, with_scaling = [], []
    for seed in range(3):
        without.append(_run(plain, seed).auroc_mean)
        result = _run(scaled, seed)
        with_scaling.append(result.auroc_mean)
        spent = [item.statement.epsilon_spent for item in result.sites if item.statement]
        assert 0.995 * 2.0 <= max(spent) <= 2.0
    assert np.mean(with_scaling) > np.mean(without) + 0.03
    assert all(more > less for more, less in zip(with_scaling, without, strict=True))


def test_the_scaling_of_a_study_is_near_the_mean_and_spread_of_its_patients() -> None:
    plan = _plan(scaling={"kind": "dp_mean_variance"})
    result = _run(plan, 7)
    _, scaling = split_model(result.parameters)
    assert scaling is not None
    planned = plan_mechanisms(plan)
    assert planned.scaling is not None
    noise = planned.scaling.noise_multiplier * 1.5 * np.sqrt(2) * np.sqrt(SITES)
    share = noise / (0.75 * SITES * PATIENTS)
    assert np.abs(scaling.mean - CENTRES).max() < 5 * share
    # No finer than the noise lets anybody see, and no coarser than that.
    assert scaling.deviation.max() < 1.5 * np.sqrt(SPREAD**2 + 1.2 * share)
    assert scaling.deviation.min() >= SPREAD * 0.9
    assert [item.round_number for item in result.rounds][:2] == [0, 1]
