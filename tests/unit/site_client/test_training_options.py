"""Each training option against a few lines that say what it is; none of them changes the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters
from common.study.columns import feature_columns, initial_parameters, parameter_shapes
from common.study.plan import Adam, StudyPlan
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import DpSgdEngine, expected_batch_size
from site_client.training.engine import TrainingTask
from site_client.training.flat_parameters import FlatParameters
from site_client.training.inner_optimizer import NoiseCorrectedAdam
from site_client.training.randomness import Randomness
from tests.lib.plans import make_plan

RATE = 0.2


def _plan(**changes: Any) -> StudyPlan:
    return make_plan(training__update_norm_max=1e6, privacy__clipping_norm=0.4, **changes)


def _patients(plan: StudyPlan, count: int = 40) -> FeatureMatrix:
    rng = np.random.default_rng(1)
    columns = feature_columns(plan)
    return FeatureMatrix(
        columns,
        rng.uniform(-1, 1, size=(count, len(columns))).astype(np.float32),
        (rng.random(count) < 0.3).astype(np.float32),
        np.arange(count),
    )


def _base(plan: StudyPlan, seed: int = 2) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 0.5, size=shape).astype(np.float32)
        for name, shape in parameter_shapes(plan).items()
    }


def _task(plan: StudyPlan, *, steps: int, noise: float = 1e-9) -> TrainingTask:
    mechanism = DpSgdSteps(noise_multiplier=noise, sampling_probability=1.0, steps=steps)
    return TrainingTask(plan, mechanism, declared_cohort_size=60)


def _flat(parameters: Parameters) -> np.ndarray:
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in parameters.values()])


def _mean_gradient(
    plan: StudyPlan, flat: np.ndarray, patients: FeatureMatrix, *, weight: float = 1.0
) -> np.ndarray:
    """The slow reference for logistic regression: clipped gradients over the public batch size."""
    total = np.zeros_like(flat)
    for x, y in zip(patients.x.astype(np.float64), patients.y, strict=True):
        residual = 1 / (1 + np.exp(-(x @ flat[:-1] + flat[-1]))) - y
        gradient = np.append(x, 1.0) * residual * (weight if y else 1.0)
        norm = np.linalg.norm(gradient)
        if plan.privacy.clipping == "normalized":
            total += gradient * plan.privacy.clipping_norm / (norm + 0.01)
        else:
            total += gradient * min(1.0, plan.privacy.clipping_norm / (norm + 1e-6))
    return total / expected_batch_size(_task(plan, steps=1))


def _trained(engine: DpSgdEngine, plan: StudyPlan, base: Parameters, steps: int) -> np.ndarray:
    done = engine.train(_patients(plan), base, _task(plan, steps=steps), Randomness.reproducible(1))
    return _flat(done.update)


def test_momentum_goes_on_from_round_to_round() -> None:
    plan = _plan(training__optimizer__momentum=0.9)
    engine, velocity = DpSgdEngine(), 0.0
    for seed in (2, 3):  # two rounds from two models
        base = _base(plan, seed)
        at = _flat(base)
        for _ in range(2):
            velocity = 0.9 * velocity + _mean_gradient(plan, at, _patients(plan))
            at = at - RATE * velocity
        found = _trained(engine, plan, base, 2)
        np.testing.assert_allclose(found, at - _flat(base), atol=2e-6)


def test_another_study_begins_without_momentum() -> None:
    plan = _plan(training__optimizer__momentum=0.9)
    other = _plan(training__optimizer__momentum=0.9, study__id="another")
    engine = DpSgdEngine()
    first = _trained(engine, plan, _base(plan), 2)
    np.testing.assert_array_equal(_trained(engine, other, _base(plan), 2), first)
    following = _trained(engine, plan, _base(plan, 3), 2)
    assert not np.array_equal(following, _trained(DpSgdEngine(), plan, _base(plan, 3), 2))


def test_the_proximal_term_pulls_back_to_the_received_model() -> None:
    plan = _plan(training__proximal_term=0.7)
    base = _base(plan)
    at = _flat(base)
    for _ in range(3):
        gradient = _mean_gradient(plan, at, _patients(plan)) + 0.7 * (at - _flat(base))
        at = at - RATE * gradient
    found = _trained(DpSgdEngine(), plan, base, 3)
    np.testing.assert_allclose(found, at - _flat(base), atol=2e-6)


@pytest.mark.parametrize("clipping", ["flat", "normalized"])
def test_the_class_weight_is_inside_the_patients_loss_and_clipped_with_it(clipping: str) -> None:
    plan = _plan(training__positive_class_weight=5.0, privacy__clipping=clipping)
    base = _base(plan)
    expected = -RATE * _mean_gradient(plan, _flat(base), _patients(plan), weight=5.0)
    np.testing.assert_allclose(_trained(DpSgdEngine(), plan, base, 1), expected, atol=2e-6)


def test_weight_decay_shrinks_the_parameters() -> None:
    settings = {"kind": "sgd", "learning_rate": RATE, "weight_decay": 0.1}
    plan = _plan(training__optimizer=settings)
    base = _base(plan)
    gradient = _mean_gradient(plan, _flat(base), _patients(plan)) + 0.1 * _flat(base)
    np.testing.assert_allclose(_trained(DpSgdEngine(), plan, base, 1), -RATE * gradient, atol=2e-6)


def _adam(noise_deviation: float, **settings: Any) -> tuple[FlatParameters, NoiseCorrectedAdam]:
    flat = FlatParameters(torch.nn.Linear(50, 1).double())
    flat.vector.data.zero_()
    spec = Adam(kind="adam", **settings)
    return flat, NoiseCorrectedAdam(flat.vector, spec, noise_deviation=noise_deviation)


def test_adam_without_noise_is_torchs_adam() -> None:
    flat, ours = _adam(0.0, learning_rate=0.01, stability=1e-8)
    theirs = torch.zeros(51, dtype=torch.float64, requires_grad=True)
    torchs = torch.optim.Adam([theirs], lr=0.01, eps=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        gradient = torch.randn(51, generator=generator, dtype=torch.float64)
        flat.gradient.copy_(gradient)
        theirs.grad = gradient.clone()
        ours.step()
        torchs.step()
    torch.testing.assert_close(flat.vector.data, theirs.data, rtol=1e-9, atol=1e-12)


def test_adam_takes_the_noises_variance_out_of_the_second_moment() -> None:
    # A small signal under large noise: plain Adam divides by the noise, the corrected one does not.
    deviation, signal = 1.0, 0.3
    flat, ours = _adam(deviation, learning_rate=0.01, beta_1=0.99, beta_2=0.999, stability=0.05)
    stream = np.random.default_rng(3)
    for _ in range(4000):
        noise = stream.normal(0, deviation, 51)
        flat.gradient.copy_(torch.from_numpy(signal + noise))
        ours.step()
    # The corrected step is about signal / sqrt(signal^2) = 1 of the learning rate; plain Adam's is
    # signal / sqrt(signal^2 + deviation^2) = 0.29 of it.
    mean_step = -float(flat.vector.data.mean()) / 4000 / 0.01
    assert 0.6 < mean_step < 2.5


def test_adam_in_the_plan_trains_and_keeps_its_moments() -> None:
    plan = _plan(training__optimizer={"kind": "adam", "learning_rate": 0.05})
    engine = DpSgdEngine()
    first = _trained(engine, plan, _base(plan), 3)
    second = _trained(engine, plan, _base(plan, 3), 3)
    assert np.isfinite(first).all() and np.abs(first).max() <= 3 * 0.05 * 4
    assert not np.array_equal(second, _trained(DpSgdEngine(), plan, _base(plan, 3), 3))


def test_several_rows_of_a_patient_move_a_step_by_no_more_than_one_patients_bound() -> None:
    plan = _plan(privacy__rows_per_patient_max=3)
    rng = np.random.default_rng(5)
    width = len(feature_columns(plan))
    x = rng.uniform(-1, 1, size=(20, 3, width)).astype(np.float32)
    y = (rng.random((20, 3)) < 0.5).astype(np.float32)
    weight = np.full((20, 3), 1 / 3, dtype=np.float32)
    x[-1], y[-1] = 1.0, 1.0  # one patient pulls with all three rows
    whole = FeatureMatrix(feature_columns(plan), x, y, np.arange(20), weight)
    without = FeatureMatrix(whole.columns, x[:-1], y[:-1], np.arange(19), weight[:-1])
    task, base = _task(plan, steps=1), _base(plan)
    moved = [
        _flat(DpSgdEngine().train(patients, base, task, Randomness.reproducible(1)).update)
        for patients in (whole, without)
    ]
    bound = RATE * plan.privacy.clipping_norm / expected_batch_size(task)
    assert np.linalg.norm(moved[0] - moved[1]) <= bound * 1.0001


def test_options_do_not_change_how_much_noise_a_step_releases() -> None:
    # Empty batches, one step: what is left is the noise alone, the same for every option.
    plain = _plan()
    options: list[dict[str, Any]] = [
        {"training__proximal_term": 2.0},
        {"training__positive_class_weight": 9.0},
        {"privacy__clipping": "normalized"},
        {"training__optimizer__momentum": 0.9},
    ]
    updates = []
    for changes in [{}, *options]:
        plan = _plan(**changes)
        mechanism = DpSgdSteps(noise_multiplier=1.0, sampling_probability=1e-9, steps=1)
        task = TrainingTask(plan, mechanism, declared_cohort_size=60)
        done = DpSgdEngine().train(
            _patients(plan, 1), initial_parameters(plain), task, Randomness.reproducible(4)
        )
        updates.append(_flat(done.update))
    for update in updates[1:]:
        np.testing.assert_array_equal(update, updates[0])
