"""Training against independent oracles: autograd a patient at a time, and the noise's own law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.models import build_model, load_parameters, read_parameters
from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters, l2_norm
from common.study.columns import feature_columns, initial_parameters, parameter_shapes
from common.study.plan import (
    Adam,
    GatedRecurrentUnit,
    MultilayerPerceptron,
    NumericFeature,
    Sgd,
    StudyPlan,
)
from common.study.plan_file import read_plan
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import (
    DpSgdEngine,
    expected_batch_size,
    project,
)
from site_client.training.engine import TrainingTask
from site_client.training.randomness import Randomness
from tests.lib.sites_in_process import PLAN

NO_NOISE = 1e-9


@pytest.fixture(params=["logistic_regression", "mlp", "gru"])
def plan(request: pytest.FixtureRequest) -> StudyPlan:
    plan = read_plan(PLAN)
    if request.param == "gru":
        features = tuple(
            item.model_copy(update={"time_bins": 3})
            if isinstance(item, NumericFeature) and item.missing == "indicator"
            else item
            for item in plan.features
        )
        model = GatedRecurrentUnit(kind="gru", width=3)
        return plan.model_copy(update={"features": features, "model": model})
    if request.param == "mlp":
        return plan.model_copy(update={"model": MultilayerPerceptron(kind="mlp", hidden=(7, 5))})
    return plan


def _patients(plan: StudyPlan, count: int, *, seed: int = 1) -> FeatureMatrix:
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan)
    return FeatureMatrix(
        columns,
        rng.uniform(-1, 1, size=(count, len(columns))).astype(np.float32),
        (rng.random(count) < 0.5).astype(np.float32),
        np.arange(count),
    )


def _base(plan: StudyPlan) -> Parameters:
    rng = np.random.default_rng(7)
    return {
        name: rng.normal(0, 0.3, size=shape).astype(np.float32)
        for name, shape in parameter_shapes(plan).items()
    }


def _task(plan: StudyPlan, *, noise: float, probability: float, steps: int) -> TrainingTask:
    mechanism = DpSgdSteps(noise_multiplier=noise, sampling_probability=probability, steps=steps)
    return TrainingTask(plan, mechanism, declared_cohort_size=400)


def _clipped_sum(plan: StudyPlan, base: Parameters, patients: FeatureMatrix) -> Parameters:
    """The slow reference: each patient's gradient by autograd, clipped, summed."""
    model = build_model(plan)
    load_parameters(model, base)
    total = {name: np.zeros(array.shape) for name, array in base.items()}
    for x, y in zip(patients.x, patients.y, strict=True):
        model.zero_grad()
        logit = model(torch.from_numpy(x[None, :])).squeeze(1)
        torch.nn.functional.binary_cross_entropy_with_logits(
            logit, torch.tensor([y]), reduction="sum"
        ).backward()
        gradient = {name: p.grad.double().numpy() for name, p in model.named_parameters()}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        scale = min(1.0, plan.privacy.clipping_norm / (norm + 1e-6))
        for name, value in gradient.items():
            total[name] += scale * value
    return total


def test_one_step_is_the_clipped_sum_of_patients_over_the_public_batch_size(
    plan: StudyPlan,
) -> None:
    patients, base = _patients(plan, 60), _base(plan)
    task = _task(plan, noise=NO_NOISE, probability=1.0, steps=1)
    done = DpSgdEngine().train(patients, base, task, Randomness.reproducible(1))
    expected = _clipped_sum(plan, base, patients)
    for name, value in expected.items():
        change = -plan.training.optimizer.learning_rate * value / expected_batch_size(task)
        np.testing.assert_allclose(done.update[name], change, atol=2e-6)
    assert done.mechanism == task.mechanism


def test_the_denominator_is_public_and_counts_training_patients_only(plan: StudyPlan) -> None:
    task = _task(plan, noise=1.0, probability=0.5, steps=1)
    assert expected_batch_size(task) == 0.5 * 400 * (1 - plan.evaluation.held_out_fraction)


def test_an_empty_batch_is_a_step_that_releases_noise(plan: StudyPlan) -> None:
    task = _task(plan, noise=1.0, probability=1e-9, steps=3)
    done = DpSgdEngine().train(_patients(plan, 50), _base(plan), task, Randomness.reproducible(2))
    assert l2_norm(done.update) > 0


def test_the_noise_of_a_step_has_the_standard_deviation_that_is_accounted(
    plan: StudyPlan,
) -> None:
    noise, steps = 2.0, 400
    # Without the projection into the norm bound, which would scale the noise down with the rest.
    training = plan.training.model_copy(update={"update_norm_max": 1e9})
    plan = plan.model_copy(update={"training": training})
    task = _task(plan, noise=noise, probability=1e-9, steps=steps)
    draws = []
    for seed in range(20):
        done = DpSgdEngine().train(
            _patients(plan, 1), _base(plan), task, Randomness.reproducible(seed)
        )
        draws.append(np.concatenate([array.ravel() for array in done.update.values()]))
    # Batches are empty: the update is -lr / B times the sum of `steps` independent noises.
    scale = plan.training.optimizer.learning_rate / expected_batch_size(task)
    measured = np.concatenate(draws) / scale / np.sqrt(steps)
    expected = noise * plan.privacy.clipping_norm
    error = 4 / np.sqrt(2 * measured.size)
    assert measured.std() == pytest.approx(expected, rel=max(0.03, error))
    assert abs(measured.mean()) < 5 * expected / np.sqrt(measured.size)


def test_no_single_patient_moves_a_step_by_more_than_the_clipping_norm(plan: StudyPlan) -> None:
    patients, base = _patients(plan, 20), _base(plan)
    extreme = replace(
        patients,
        x=np.vstack([patients.x, np.full((1, patients.x.shape[1]), 1.0, np.float32)]),
        y=np.append(patients.y, np.float32(1)),
        part=np.arange(21),
    )
    task = _task(plan, noise=NO_NOISE, probability=1.0, steps=1)
    without = DpSgdEngine().train(patients, base, task, Randomness.reproducible(1)).update
    with_patient = DpSgdEngine().train(extreme, base, task, Randomness.reproducible(1)).update
    moved = l2_norm({name: with_patient[name] - without[name] for name in without})
    bound = (
        plan.training.optimizer.learning_rate
        * plan.privacy.clipping_norm
        / expected_batch_size(task)
    )
    assert moved <= bound * 1.0001


def test_system_randomness_never_repeats_and_the_test_mode_does(plan: StudyPlan) -> None:
    first, second = Randomness.from_system(), Randomness.from_system()
    assert not first.is_reproducible
    assert not np.array_equal(first.noise.normal(size=8), second.noise.normal(size=8))
    assert not np.array_equal(first.noise.random(8), first.sampling.random(8))
    task = _task(plan, noise=1.0, probability=0.5, steps=2)
    runs = [
        DpSgdEngine()
        .train(_patients(plan, 30), _base(plan), task, Randomness.reproducible(5))
        .update
        for _ in range(2)
    ]
    for name, array in runs[0].items():
        assert np.array_equal(array, runs[1][name])
    assert Randomness.reproducible(5).is_reproducible


def test_torchs_own_generator_has_no_part_in_the_noise(plan: StudyPlan) -> None:
    task = _task(plan, noise=1.0, probability=0.5, steps=2)
    updates = []
    for _ in range(2):
        torch.manual_seed(0)
        updates.append(
            DpSgdEngine()
            .train(_patients(plan, 30), _base(plan), task, Randomness.from_system())
            .update
        )
    name = next(iter(updates[0]))
    assert not np.array_equal(updates[0][name], updates[1][name])


def test_an_update_is_projected_into_the_plans_norm_bound() -> None:
    update = {"w": np.full(100, 3.0, dtype=np.float32)}
    assert l2_norm(project(update, 10.0)) <= 10.0
    assert l2_norm(project(update, 10.0)) == pytest.approx(10.0, rel=1e-4)
    assert project(update, 100.0) is update


def test_the_torch_model_has_the_parameters_that_the_plan_fixes(plan: StudyPlan) -> None:
    model = build_model(plan)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == parameter_shapes(plan)
    parameters = initial_parameters(plan)
    load_parameters(model, parameters)
    for name, array in read_parameters(model).items():
        assert np.array_equal(array, parameters[name])


@pytest.mark.parametrize(
    "optimizer",
    [
        Sgd(kind="sgd", learning_rate=0.1, momentum=0.9),
        Adam(kind="adam", learning_rate=0.01),
    ],
    ids=["momentum", "adam"],
)
def test_a_round_made_again_after_a_failed_release_holds_nothing_of_the_attempt_before(
    plan: StudyPlan, optimizer: Sgd | Adam
) -> None:
    training = plan.training.model_copy(update={"optimizer": optimizer})
    plan = plan.model_copy(update={"training": training})
    task = _task(plan, noise=1.0, probability=0.5, steps=3)
    patients, first = _patients(plan, 40), _base(plan)
    second = {name: array + np.float32(0.1) for name, array in first.items()}

    def last_update(*failed_attempts: int) -> Parameters:
        engine = DpSgdEngine()
        engine.train(patients, first, task, Randomness.reproducible(1))
        for seed in failed_attempts:
            engine.train(patients, second, task, Randomness.reproducible(seed))
        return engine.train(patients, second, task, Randomness.reproducible(9)).update

    expected = last_update()
    for found in (last_update(2), last_update(3, 4)):
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_momentum_of_a_round_reaches_the_next(plan: StudyPlan) -> None:
    training = plan.training.model_copy(
        update={"optimizer": Sgd(kind="sgd", learning_rate=0.1, momentum=0.9)}
    )
    task = _task(
        plan.model_copy(update={"training": training}), noise=1.0, probability=0.5, steps=3
    )
    patients, base = _patients(plan, 40), _base(plan)
    other = {name: array + np.float32(0.1) for name, array in base.items()}
    engine = DpSgdEngine()
    engine.train(patients, other, task, Randomness.reproducible(1))
    kept = engine.train(patients, base, task, Randomness.reproducible(2)).update
    fresh = DpSgdEngine().train(patients, base, task, Randomness.reproducible(2)).update
    assert any(not np.array_equal(kept[name], fresh[name]) for name in kept)
