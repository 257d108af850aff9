from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from common.errors import AccountingError
from common.privacy.accountant import epsilon_by_part, epsilon_of
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)

DELTA = 1e-5
STEPS = DpSgdSteps(2.0, 0.5, 10)


def exact_gaussian_delta(noise_multiplier: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    shift = 1 / (2 * noise_multiplier)
    scaled = epsilon * noise_multiplier
    return phi(shift - scaled) - math.exp(epsilon) * phi(-shift - scaled)


def test_nothing_spent_is_epsilon_zero() -> None:
    assert epsilon_of([], delta=DELTA) == 0.0
    assert epsilon_by_part({}, delta=DELTA) == {}


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("count", [1, 7])
def test_gaussian_releases_agree_with_the_closed_form_from_above(
    noise_multiplier: float, count: int
) -> None:
    epsilon = epsilon_of([GaussianVector(noise_multiplier)] * count, delta=DELTA)
    joint = noise_multiplier / math.sqrt(count)
    assert exact_gaussian_delta(joint, epsilon) <= DELTA * (1 + 1e-9)
    assert exact_gaussian_delta(joint, epsilon - 1e-3) > DELTA


def exact_counts_delta(noise_multiplier: float, cells: int, epsilon: float) -> float:
    """Hockey-stick divergence of `cells` discrete Gaussians and the same moved by 1 each."""
    reach = math.ceil(12 * noise_multiplier)
    support = np.arange(-reach, reach + 1)
    one = np.exp(-(support**2) / (2 * noise_multiplier**2))
    one /= one.sum()
    total, start = np.array([1.0]), 0
    for _ in range(cells):  # the loss depends on the sum of the cells' noise alone
        total, start = np.convolve(total, one), start - reach
    sums = start + np.arange(len(total))
    loss = (2 * sums + cells) / (2 * noise_multiplier**2)
    return float((total * np.maximum(0.0, -np.expm1(epsilon - loss))).sum())


@pytest.mark.parametrize("noise_multiplier", [0.3, 0.7, 2.0, 9.5])
@pytest.mark.parametrize("cells", [1, 2, 7])
def test_discrete_counts_agree_with_the_exact_sum_from_above(
    noise_multiplier: float, cells: int
) -> None:
    epsilon = epsilon_of([DiscreteGaussianCounts(noise_multiplier, cells)], delta=DELTA)
    assert exact_counts_delta(noise_multiplier, cells, epsilon) <= DELTA * (1 + 1e-6)
    assert exact_counts_delta(noise_multiplier, cells, epsilon * 0.999 - 1e-9) > DELTA


def test_a_release_of_many_cells_is_as_many_releases_of_one_cell() -> None:
    one = [DiscreteGaussianCounts(9.5, 1)] * 6
    assert epsilon_of(one, delta=DELTA) == epsilon_of(
        [DiscreteGaussianCounts(9.5, 4), DiscreteGaussianCounts(9.5, 2)], delta=DELTA
    )


@pytest.mark.parametrize(
    ("noise_multiplier", "cells"), [(90.0, 1000), (101.0, 1000), (400.0, 1000)]
)
def test_many_cells_of_much_noise_are_not_charged_more_than_a_gaussian_by_half_a_percent(
    noise_multiplier: float, cells: int
) -> None:
    epsilon = epsilon_of([DiscreteGaussianCounts(noise_multiplier, cells)] * 4, delta=DELTA)
    gaussian = epsilon_of([GaussianVector(noise_multiplier / math.sqrt(4 * cells))], delta=DELTA)
    assert gaussian * 0.9999 <= epsilon <= gaussian * 1.005


def test_a_list_of_two_thousand_different_records_is_accounted_for() -> None:
    records: list[MechanismRecord] = [GaussianVector(500.0 + number) for number in range(2000)]
    assert 0 < epsilon_of(records, delta=DELTA) < 1


def test_sampling_every_patient_is_no_sampling() -> None:
    full = epsilon_of([DpSgdSteps(5.0, 1.0, 9)], delta=DELTA)
    assert full == epsilon_of([GaussianVector(5.0)] * 9, delta=DELTA)


def test_order_and_grouping_do_not_matter() -> None:
    records: list[MechanismRecord] = [STEPS, GaussianVector(9.0), STEPS, DpSgdSteps(3.0, 0.1, 4)]
    assert epsilon_of(records, delta=DELTA) == epsilon_of(reversed(records), delta=DELTA)
    joined = [DpSgdSteps(2.0, 0.5, 20), DpSgdSteps(3.0, 0.1, 4), GaussianVector(9.0)]
    assert epsilon_of(records, delta=DELTA) == epsilon_of(joined, delta=DELTA)


def test_disjoint_parts_compose_in_parallel() -> None:
    train = DpSgdSteps(2.0, 0.5, 10, PatientPart(250_000, 1_000_000))
    score = GaussianVector(1.5, PatientPart(0, 250_000))
    alone = [epsilon_of([record], delta=DELTA) for record in (train, score)]
    assert epsilon_of([train, score], delta=DELTA) == max(alone)


def test_overlapping_parts_compose_for_the_patients_in_both() -> None:
    left = DpSgdSteps(2.0, 0.5, 10, PatientPart(0, 600_000))
    right = GaussianVector(1.5, PatientPart(400_000, 1_000_000))
    by_part = epsilon_by_part(Counter([left, right]), delta=DELTA)
    assert set(by_part) == {
        PatientPart(0, 400_000),
        PatientPart(400_000, 600_000),
        PatientPart(600_000, 1_000_000),
    }
    both = epsilon_of([DpSgdSteps(2.0, 0.5, 10), GaussianVector(1.5)], delta=DELTA)
    assert by_part[PatientPart(400_000, 600_000)] == both
    assert epsilon_of([left, right], delta=DELTA) == both


def test_a_patient_nobody_touched_has_no_part() -> None:
    records = [GaussianVector(2.0, PatientPart(0, 10)), GaussianVector(2.0, PatientPart(20, 30))]
    assert set(epsilon_by_part(Counter(records), delta=DELTA)) == {
        PatientPart(0, 10),
        PatientPart(20, 30),
    }


@dataclass(frozen=True)
class _Widened(GaussianVector):
    """A record that means something else."""


@pytest.mark.parametrize(
    "record",
    [
        GaussianVector(0.0),
        GaussianVector(-1.0),
        GaussianVector(math.nan),
        GaussianVector(math.inf),
        DpSgdSteps(1.0, 0.0, 1),
        DpSgdSteps(1.0, 1.5, 1),
        DpSgdSteps(1.0, math.nan, 1),
        DpSgdSteps(1.0, 0.5, 0),
        DpSgdSteps(1.0, 0.5, 10**9),
        GaussianVector(1.0, PatientPart(5, 5)),
        GaussianVector(1.0, PatientPart(-1, 5)),
        GaussianVector(1.0, PatientPart(0, 1_000_001)),
        _Widened(1.0),
        DiscreteGaussianCounts(0.0, 1),
        DiscreteGaussianCounts(20_000.0, 1),
        DiscreteGaussianCounts(1.0, 0),
        DiscreteGaussianCounts(1.0, 10_001),
        "gaussian",
    ],
)
def test_a_record_that_is_unknown_or_impossible_is_refused(record: MechanismRecord) -> None:
    with pytest.raises(AccountingError):
        epsilon_of([STEPS, record], delta=DELTA)


@pytest.mark.parametrize("delta", [0.0, 1e-11, 1.0, math.nan])
def test_a_delta_that_cannot_be_computed_is_refused(delta: float) -> None:
    with pytest.raises(AccountingError):
        epsilon_of([STEPS], delta=delta)
