from __future__ import annotations

import pytest

from common.errors import AccountingError
from common.privacy.accountant import epsilon_of
from common.privacy.calibration import (
    calibrate_evaluation,
    calibrate_training,
    evaluation_rounds,
    plan_mechanisms,
)
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    MechanismRecord,
    PatientPart,
)
from tests.lib.plans import make_plan

UNUSED_SHARE_MAX = 0.005


@pytest.mark.parametrize(
    ("epsilon", "delta", "sampling_probability", "steps"),
    [
        (3.0, 1e-4, 0.5, 100),
        (1.0, 1e-5, 0.02, 5000),
        (8.0, 1e-6, 1.0, 30),
        (0.1, 1e-5, 0.1, 1000),
        (20.0, 1e-3, 0.9, 10),
        (0.01, 1e-6, 1.0, 1000),
    ],
)
def test_training_noise_is_the_smallest_that_keeps_the_budget(
    epsilon: float, delta: float, sampling_probability: float, steps: int
) -> None:
    noise = calibrate_training(
        epsilon=epsilon, delta=delta, sampling_probability=sampling_probability, steps=steps
    )

    def spent(noise_multiplier: float) -> float:
        record = DpSgdSteps(noise_multiplier, sampling_probability, steps)
        return epsilon_of([record], delta=delta)

    assert (1 - UNUSED_SHARE_MAX) * epsilon <= spent(noise) <= epsilon < spent(noise - 1e-4)
    assert noise == round(noise, 4)


@pytest.mark.parametrize(("epsilon", "releases"), [(3.0, 1), (3.0, 10), (0.2, 100), (50.0, 2)])
def test_evaluation_noise_is_the_smallest_that_keeps_the_budget(
    epsilon: float, releases: int
) -> None:
    noise = calibrate_evaluation(epsilon=epsilon, delta=1e-5, releases=releases)
    spent = epsilon_of([DiscreteGaussianCounts(noise, 1)] * releases, delta=1e-5)
    assert (1 - UNUSED_SHARE_MAX) * epsilon <= spent <= epsilon
    less = epsilon_of([DiscreteGaussianCounts(noise - 1e-4, 1)] * releases, delta=1e-5)
    assert less > epsilon


def test_where_delta_alone_covers_the_sampling_the_floor_of_the_noise_is_returned() -> None:
    noise = calibrate_training(epsilon=5.0, delta=1e-3, sampling_probability=5e-4, steps=1)
    assert noise == 0.05


def test_a_budget_that_no_noise_keeps_is_refused() -> None:
    with pytest.raises(AccountingError, match="no noise"):
        calibrate_training(epsilon=1e-5, delta=1e-9, sampling_probability=1.0, steps=1_000_000)


def test_a_plan_spends_its_epsilon_on_each_part_of_the_patients_and_no_more() -> None:
    plan = make_plan()
    planned = plan_mechanisms(plan)
    assert planned.train_per_round.part == PatientPart(250_000, 1_000_000)
    assert planned.evaluation_per_release.part == PatientPart(0, 250_000)
    whole: list[MechanismRecord] = [planned.train_per_round] * planned.rounds
    whole += [planned.evaluation_per_release] * planned.releases
    spent = epsilon_of(whole, delta=plan.privacy.delta)
    assert 0.995 * plan.privacy.epsilon <= spent <= plan.privacy.epsilon
    one_more = [*whole, planned.train_per_round]
    assert epsilon_of(one_more, delta=plan.privacy.delta) > plan.privacy.epsilon


def test_given_noise_is_used_as_it_is() -> None:
    plan = make_plan(privacy__noise_multiplier=7.25)
    assert plan_mechanisms(plan).train_per_round.noise_multiplier == 7.25


@pytest.mark.parametrize("rounds", range(1, 14))
def test_evaluations_are_spread_and_the_last_is_of_the_final_model(rounds: int) -> None:
    for releases in range(1, rounds + 1):
        chosen = evaluation_rounds(rounds=rounds, releases=releases)
        assert len(set(chosen)) == releases
        assert chosen[-1] == rounds + 1
        assert min(chosen) >= 2  # round 1 receives the untrained model
        gaps = [after - before for before, after in zip((1, *chosen), chosen, strict=False)]
        assert max(gaps) - min(gaps) <= 1
