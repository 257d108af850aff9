"""The filter against dp-accounting: its divergences, its conversion, and what it lets pass."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AccountingError
from common.privacy.accountant import epsilon_of_counted
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.renyi_filter import RenyiFilter, renyi_divergence

TARGETS = [(8.0, 1e-3), (3.0, 1e-5), (0.5, 1e-6), (20.0, 1e-4)]
PARTS = [PatientPart(0, 250_000), PatientPart(250_000, 1_000_000), PatientPart(100_000, 600_000)]


def dp_accounting_divergence(record: MechanismRecord, order: int) -> float:
    accountant = RdpAccountant([order])
    gaussian = dp_event.GaussianDpEvent(record.noise_multiplier)
    if isinstance(record, DpSgdSteps):
        sampled = dp_event.PoissonSampledDpEvent(record.sampling_probability, gaussian)
        accountant.compose(sampled, record.steps)
    elif isinstance(record, DiscreteGaussianCounts):
        accountant.compose(gaussian, record.cells_per_patient_max)
    else:
        accountant.compose(gaussian)
    return float(accountant._rdp[0])


records = st.one_of(
    st.builds(
        DpSgdSteps,
        noise_multiplier=st.sampled_from([2.0, 4.4493, 9.0]),
        sampling_probability=st.sampled_from([0.02, 0.3, 1.0]),
        steps=st.integers(1, 30),
        part=st.sampled_from(PARTS),
    ),
    st.builds(
        GaussianVector,
        noise_multiplier=st.sampled_from([3.0, 10.0, 40.0]),
        part=st.sampled_from(PARTS),
    ),
    st.builds(
        DiscreteGaussianCounts,
        noise_multiplier=st.sampled_from([4.0, 20.0]),
        cells_per_patient_max=st.integers(1, 5),
        part=st.sampled_from(PARTS),
    ),
)


@settings(deadline=None, max_examples=60)
@given(records, st.sampled_from([2, 3, 5, 12, 40, 255]))
def test_each_divergence_is_dp_accountings_at_that_order(
    record: MechanismRecord, order: int
) -> None:
    theirs = dp_accounting_divergence(record, order)
    assert renyi_divergence(record, order) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("noise_multiplier", "order"), [(0.5, 4), (0.7, 12), (1.5, 3), (6.0, 30)])
def test_a_discrete_gaussian_diverges_no_more_than_its_record_says(
    noise_multiplier: float, order: int
) -> None:
    reach = math.ceil(40 * noise_multiplier)
    log_p = {x: -x * x / (2 * noise_multiplier**2) for x in range(-reach, reach + 1)}
    log_total = math.log(math.fsum(math.exp(value) for value in log_p.values()))
    moment = math.fsum(
        math.exp(order * log_p[x] - (order - 1) * log_p[x + 1] - log_total)
        for x in range(-reach, reach)
    )
    exact = math.log(moment) / (order - 1)
    record = DiscreteGaussianCounts(noise_multiplier, 1)
    assert exact <= renyi_divergence(record, order) * (1 + 1e-9)


@pytest.mark.parametrize(("epsilon", "delta"), TARGETS)
def test_the_budget_is_the_divergence_that_dp_accounting_converts_to_epsilon(
    epsilon: float, delta: float
) -> None:
    renyi = RenyiFilter.for_target(epsilon, delta)
    converted, _ = compute_epsilon([renyi.order], [renyi.budget], delta)
    assert converted == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize(("epsilon", "delta"), TARGETS)
def test_the_order_lets_the_most_gaussian_releases_pass(epsilon: float, delta: float) -> None:
    renyi = RenyiFilter.for_target(epsilon, delta)
    least_noise = renyi.budget / renyi.order
    for order in range(2, 300):
        budget = epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)
        assert budget / order <= least_noise * (1 + 1e-12)


@settings(deadline=None, max_examples=25)
@given(st.lists(records, max_size=40), st.sampled_from(TARGETS))
def test_what_passes_one_by_one_stays_within_the_budget_and_within_epsilon_by_pld(
    asked: list[MechanismRecord], target: tuple[float, float]
) -> None:
    epsilon, delta = target
    renyi = RenyiFilter.for_target(epsilon, delta)
    passed: Counter[MechanismRecord] = Counter()
    for record in asked:
        if renyi.is_within(passed + Counter([record])):
            passed[record] += 1
    for patient in range(50_000, 1_000_000, 100_000):  # a slow sum for some patients of each part
        own = sum(
            count * dp_accounting_divergence(record, renyi.order)
            for record, count in passed.items()
            if record.part.first <= patient < record.part.stop
        )
        assert own <= renyi.budget * (1 + 1e-9)
    assert epsilon_of_counted(passed, delta=delta) <= epsilon


def test_disjoint_parts_fill_the_budget_apart() -> None:
    left, right = (GaussianVector(3.0, PARTS[number]) for number in (0, 1))
    renyi = RenyiFilter.for_target(8.0, 1e-3)
    assert renyi.spent({left: 2, right: 2}) == renyi.spent({left: 2})
    assert renyi.spent({left: 1, GaussianVector(3.0): 1}) == pytest.approx(renyi.spent({left: 2}))
    assert renyi.spent({}) == 0.0


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1e-5, 1e-10)]
)
def test_a_limit_that_no_filter_keeps_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(AccountingError, match="filter"):
        RenyiFilter.for_target(epsilon, delta)
