"""The noise of a secure sum: what a site is charged and what everybody else sees, computed exactly.

The pooled guarantee is for whoever sees the sum and no site's own noise: the sum's noise is that of
its honest sites, whose exact distribution is a convolution. Its privacy loss is composed here with
dp-accounting's distributions, not with a Gaussian's. Second source: Kairouz, Liu and Steinke 2021
(arXiv:2102.06387), theorem 1, for sums of discrete Gaussians.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from common import limits
from common.privacy.accountant import epsilon_of
from common.privacy.mechanism import DiscreteGaussianCounts
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, report_mechanisms, report_tensors
from tests.lib.plans import make_plan

PERIOD_KINDS = (ReportKind.CASE_MIX, ReportKind.OUTCOME)
DISCRETIZATION = 1e-4


def plan_of(mode: str, *, epsilon: float, sites: int) -> StudyPlan:
    monitoring = {
        "sentinel_features": ["age", "sex"],
        "epsilon_per_report": epsilon,
        "mode": mode,
        "sum_sites_min": sites,
    }
    return make_plan(monitoring=monitoring)


def mechanisms_of(plan: StudyPlan) -> list[DiscreteGaussianCounts]:
    """Return the records of both reports of one period."""
    return [record for kind in PERIOD_KINDS for record in report_mechanisms(plan, kind)]


def pooled(noise_multiplier: float, sites: int) -> npt.NDArray[np.float64]:
    """Return the probabilities of a sum of independent discrete Gaussians, around its middle."""
    reach = math.ceil(14 * noise_multiplier) + 1
    values = np.arange(-reach, reach + 1)
    one = np.exp(-(values**2) / (2 * noise_multiplier**2))
    one /= one.sum()
    total = np.ones(1)
    for _ in range(sites):
        total = np.convolve(total, one)
    return total


def loss_of(probabilities: npt.NDArray[np.float64]) -> pld.PrivacyLossDistribution:
    """Return the privacy loss of one cell with this noise, of which a patient changes one count."""
    # What is below 1e-60 of the mass is left out on both sides; delta is far above it.
    logs = {place: math.log(p) for place, p in enumerate(probabilities) if p > 1e-60}
    shifted = {place + 1: value for place, value in logs.items()}
    return pld.from_two_probability_mass_functions(
        shifted, logs, value_discretization_interval=DISCRETIZATION
    )


def pooled_epsilon(plan: StudyPlan, *, honest: int) -> float:
    """Return the epsilon of one period's reports for whoever sees only the sum."""
    total = None
    for record in mechanisms_of(plan):
        loss = loss_of(pooled(record.noise_multiplier, honest))
        loss = loss.self_compose(record.cells_per_patient_max)
        total = loss if total is None else total.compose(loss)
    assert total is not None
    return float(total.get_epsilon_for_delta(plan.privacy.delta))


@pytest.mark.parametrize("sites", [3, 5, 20])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_sum_over_the_least_number_of_honest_sites_keeps_the_plans_epsilon(
    epsilon: float, sites: int
) -> None:
    plan = plan_of("sum", epsilon=epsilon, sites=sites)
    assert pooled_epsilon(plan, honest=sites) <= epsilon * 1.001  # the loss grid rounds up


@pytest.mark.parametrize("sites", [3, 5, 20])
def test_more_honest_sites_make_it_smaller_and_fewer_larger(sites: int) -> None:
    plan = plan_of("sum", epsilon=1.0, sites=sites)
    fewer, enough, more = (
        pooled_epsilon(plan, honest=number) for number in (sites - 1, sites, 2 * sites)
    )
    assert more < enough < fewer


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_the_ledgers_charge_is_that_of_the_sites_own_noise_alone(epsilon: float) -> None:
    plan = plan_of("sum", epsilon=epsilon, sites=5)
    charged = epsilon_of(mechanisms_of(plan), delta=plan.privacy.delta)
    alone = pooled_epsilon(plan, honest=1)
    assert charged == pytest.approx(alone, rel=0.01)
    assert charged > epsilon  # it trusts nobody, so it is more than what the sum tells


def test_the_board_divides_one_noise_over_the_least_number_of_sites() -> None:
    for kind in ReportKind:
        sealed = report_tensors(plan_of("sealed", epsilon=1.0, sites=7), kind)
        summed = report_tensors(plan_of("sum", epsilon=1.0, sites=7), kind)
        for whole, own in zip(sealed, summed, strict=True):
            assert (whole.name, whole.shape) == (own.name, own.shape)
            pooled_noise = own.noise_multiplier * math.sqrt(7)
            assert whole.noise_multiplier <= pooled_noise <= whole.noise_multiplier + 3e-4
        assert [tensor.family for tensor in sealed] == [tensor.family for tensor in summed]


def test_a_site_never_draws_less_noise_than_a_sum_needs_to_stay_close_to_a_gaussian() -> None:
    plan = plan_of("sum", epsilon=3.0, sites=1000)
    noises = {record.noise_multiplier for record in mechanisms_of(plan)}
    assert noises == {limits.SUM_NOISE_MULTIPLIER_MIN}


@pytest.mark.parametrize("sites", [3, 5, 10, 30, 100])
def test_at_the_least_noise_a_sum_is_within_a_thousandth_of_one_discrete_gaussian(
    sites: int,
) -> None:
    noise = limits.SUM_NOISE_MULTIPLIER_MIN
    # Theorem 1: a sum is (1/2) e^2 concentrated DP for e <= 1 / (sqrt(n) noise) + tau per cell.
    tau = 10 * sum(math.exp(-2 * math.pi**2 * noise**2 * k / (k + 1)) for k in range(1, sites))
    assert tau < 6e-4
    # Exactly, for the orders that matter: Renyi divergence of neighbours against a Gaussian's.
    probabilities = pooled(noise, sites)
    logs = np.log(np.maximum(probabilities, 1e-300))
    for order in (1.5, 2, 4, 8, 16):
        terms = order * logs[1:] + (1 - order) * logs[:-1]
        kept = probabilities[1:] > 1e-250
        divergence = np.log(np.exp(terms[kept]).sum()) / (order - 1)
        gaussian = order / (2 * sites * noise**2)
        assert divergence <= gaussian * 1.001, order
