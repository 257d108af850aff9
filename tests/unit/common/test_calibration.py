from __future__ import annotations

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant

from common.errors import AccountingError
from common.privacy.accountant import epsilon_of, epsilon_of_counted
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


def test_an_epsilon_next_to_zero_is_kept_by_delta_alone() -> None:
    noise = calibrate_training(epsilon=2.3e-309, delta=1e-5, sampling_probability=0.5, steps=1)
    assert epsilon_of((DpSgdSteps(noise, 0.5, 1),), delta=1e-5) == 0.0


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


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.15, 0.5])
@pytest.mark.parametrize(("epsilon", "delta"), [(3.0, 1e-4), (0.5, 1e-5), (12.0, 1e-6)])
def test_with_scaling_the_whole_study_spends_its_epsilon_and_no_more(
    fraction: float, epsilon: float, delta: float
) -> None:
    plan = make_plan(
        scaling={"kind": "dp_mean_variance", "epsilon_fraction": fraction},
        privacy__epsilon=epsilon,
        privacy__delta=delta,
        training__update_norm_max=1e6,
        monitoring=...,
    )
    planned = plan_mechanisms(plan)
    assert planned.scaling is not None
    assert planned.scaling.part == planned.train_per_round.part
    alone = epsilon_of([planned.scaling], delta=delta)
    assert (1 - UNUSED_SHARE_MAX) * fraction * epsilon <= alone <= fraction * epsilon
    whole = [record for record, count in planned.counted for _ in range(count)]
    assert (1 - UNUSED_SHARE_MAX) * epsilon <= epsilon_of(whole, delta=delta) <= epsilon
    on_training = [record for record in whole if record.part == planned.scaling.part]
    spent = epsilon_of(on_training, delta=delta)
    assert (1 - UNUSED_SHARE_MAX) * epsilon <= spent <= epsilon
    one_more = epsilon_of([*on_training, planned.scaling], delta=delta)
    assert one_more > spent


def test_the_default_share_costs_training_less_than_two_percent_more_noise() -> None:
    plain = plan_mechanisms(make_plan()).train_per_round.noise_multiplier
    scaled = plan_mechanisms(make_plan(scaling={"kind": "dp_mean_variance"})).train_per_round
    assert plain < scaled.noise_multiplier < 1.02 * plain


def test_with_scaling_the_ledgers_epsilon_is_dp_accountings_of_the_flat_list() -> None:
    plan = make_plan(scaling={"kind": "dp_mean_variance", "epsilon_fraction": 0.4})
    planned, training = plan_mechanisms(plan), plan.training
    assert planned.scaling is not None
    events: list[dp_event.DpEvent] = [dp_event.GaussianDpEvent(planned.scaling.noise_multiplier)]
    step = dp_event.PoissonSampledDpEvent(
        training.sampling_probability,
        dp_event.GaussianDpEvent(planned.train_per_round.noise_multiplier),
    )
    events += [step] * (training.rounds * training.local_steps)
    flat = PLDAccountant(value_discretization_interval=1e-4)
    for event in events:
        flat.compose(event)
    expected = flat.get_epsilon(plan.privacy.delta)
    counted = dict(planned.counted[:2])
    found = epsilon_of_counted(counted, delta=plan.privacy.delta)
    assert 0.999 * expected <= found <= 1.005 * expected
