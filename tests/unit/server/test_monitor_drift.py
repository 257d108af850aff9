"""Drift tests keep their error rate whatever the noise, and measure what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency, wasserstein_distance
from scipy.stats.contingency import association

from server.monitor_board.statistics.drift import ordered_drift, share_drift, unordered_drift
from server.monitor_board.statistics.noisy_shares import (
    NoisyShares,
    contrast_of,
    shares_of,
    stratified,
)
from server.monitor_board.statistics.wasserstein import wasserstein

Floats = npt.NDArray[np.float64]
RUNS = 20_000
EVEN = np.ones(10) / 10
BELL = np.exp(-(np.linspace(-2.5, 2.5, 10) ** 2) / 2)
STEEP = np.exp(-1.2 * np.arange(10))
MOSTLY_ONE = np.array([0.95, 0.03, 0.01, 0.005, 0.005])
LAWS = {"even": EVEN, "bell": BELL / BELL.sum(), "steep": STEEP / STEEP.sum(), "one": MOSTLY_ONE}
SIZES = [(1_000, 5_000, 4.0), (1_000, 5_000, 18.0), (10_000, 2_000, 18.0)]


def _pair(
    law: Floats, patients: int, reference: int, sd: float, runs: int = RUNS
) -> tuple[NoisyShares, NoisyShares]:
    rng = np.random.default_rng(17)
    current = rng.multinomial(patients, law, runs) + rng.normal(0, sd, (runs, len(law)))
    past = rng.multinomial(reference, law, runs) + rng.normal(0, sd, (runs, len(law)))
    return shares_of(current, sd), shares_of(past, sd)


def _false_alarms(p_values: Floats) -> float:
    return float((p_values <= 0.01).mean())


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("patients", "reference", "sd"), SIZES)
def test_each_test_alarms_falsely_once_in_a_hundred(
    law: str, patients: int, reference: int, sd: float
) -> None:
    contrast = contrast_of(*_pair(LAWS[law], patients, reference, sd))
    gaps = np.full(len(LAWS[law]) - 1, 0.3)
    assert 0.005 < _false_alarms(ordered_drift(contrast, gaps).p_value) < 0.015
    assert 0.005 < _false_alarms(unordered_drift(contrast).p_value) < 0.015
    assert 0.005 < _false_alarms(share_drift(contrast, 1).p_value) < 0.015


def test_the_chi_square_without_its_correction_would_alarm_falsely_on_uneven_shares() -> None:
    current, past = _pair(LAWS["one"], 1_000, 5_000, 18.0)
    contrast = contrast_of(current, past)
    simple = (contrast.difference**2 / contrast.variance).sum(axis=-1)
    assert _false_alarms(chi2.sf(simple, 4)) > 0.02
    assert _false_alarms(unordered_drift(contrast).p_value) < 0.015


@pytest.mark.parametrize("law", LAWS)
def test_the_wasserstein_p_value_is_that_of_a_simulation_far_into_the_tail(law: str) -> None:
    shares = LAWS[law]
    contrast = contrast_of(*_pair(shares, 20_000, 20_000, 60.0, runs=1))
    gaps = np.full(len(shares) - 1, 0.3)
    rng = np.random.default_rng(5)
    errors = rng.normal(0, np.sqrt(contrast.variance), (400_000, len(shares)))
    errors -= contrast.expected * errors.sum(axis=-1, keepdims=True)
    simulated = np.sort((gaps * np.abs(np.cumsum(errors, axis=-1)[:, :-1])).sum(axis=-1))
    for p_value in (0.2, 0.05, 0.01, 1e-3, 1e-4):
        distance = simulated[int(len(simulated) * (1 - p_value))]
        scale = distance / wasserstein(contrast, gaps).value
        moved = type(contrast)(
            contrast.difference * scale[:, None],
            contrast.expected,
            contrast.variance,
            np.full(1, 1e12),
        )
        assert wasserstein(moved, gaps).p_value[0] == pytest.approx(p_value, rel=0.25)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=2, max_size=12),
    st.lists(st.integers(1, 500), min_size=12, max_size=12),
)
def test_without_noise_the_distance_is_scipys(current: list[int], past: list[int]) -> None:
    counts = np.array([current], dtype=np.float64)
    others = np.array([past[: len(current)]], dtype=np.float64)
    middles = np.cumsum(np.arange(1, len(current) + 1)) / 4
    contrast = contrast_of(shares_of(counts, 0.0), shares_of(others, 0.0))
    expected = wasserstein_distance(middles, middles, counts[0], others[0])
    assert wasserstein(contrast, np.diff(middles)).value[0] == pytest.approx(expected, abs=1e-9)


def test_without_noise_the_chi_square_is_that_of_a_contingency_table() -> None:
    current, past = np.array([[130.0, 240, 310, 320]]), np.array([[600.0, 1200, 1700, 1500]])
    found = unordered_drift(contrast_of(shares_of(current, 0.0), shares_of(past, 0.0)))
    expected = chi2_contingency(np.concatenate([current, past]))
    assert found.p_value[0] == pytest.approx(expected.pvalue, rel=0.02)


def test_cohens_w_of_a_large_shift_is_about_the_shift_in_deviations() -> None:
    bell = np.diff(np.array([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]))
    moved = np.array([0.08, 0.12, 0.22, 0.26, 0.17, 0.15])
    n = 1_000_000
    contrast = contrast_of(shares_of(n * moved[None], 0.0), shares_of(n * bell[None], 0.0))
    table = np.array([n * moved, n * bell]).astype(int)
    cramer = association(table)  # of two equal groups, w of either to the middle is 2 V
    assert unordered_drift(contrast).effect[0] == pytest.approx(2 * cramer, rel=0.02)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_the_interval_of_a_distance_holds_the_truth(shift: float) -> None:
    rng = np.random.default_rng(3)
    moved = EVEN + shift * np.linspace(-0.1, 0.1, 10)
    gaps, sd, runs = np.full(9, 0.3), 18.0, 4_000
    current = shares_of(rng.multinomial(2_000, moved, runs) + rng.normal(0, sd, (runs, 10)), sd)
    past = shares_of(rng.multinomial(5_000, EVEN, runs) + rng.normal(0, sd, (runs, 10)), sd)
    found = ordered_drift(contrast_of(current, past), gaps)
    true = float((gaps * np.abs(np.cumsum(moved - EVEN)[:-1])).sum())
    assert ((found.low <= true + 1e-9) & (true <= found.high)).mean() >= 0.95


def test_noise_does_not_enlarge_an_effect() -> None:
    found = ordered_drift(contrast_of(*_pair(EVEN, 1_000, 1_000, 18.0)), np.full(9, 0.3))
    exact = wasserstein(contrast_of(*_pair(EVEN, 1_000, 1_000, 18.0)), np.full(9, 0.3))
    assert np.mean(found.effect) < 0.5 * np.mean(exact.value)


def test_one_patient_in_an_impossible_cell_is_no_miracle() -> None:
    reference = np.array([[50_000.0, 50_000.0, 0.0]])
    current = np.array([[500.0, 500.0, 1.0]])
    contrast = contrast_of(shares_of(current, 0.0), shares_of(reference, 0.0))
    assert share_drift(contrast, 2).p_value[0] > 1e-4
    assert unordered_drift(contrast).p_value[0] > 1e-4


def test_differences_from_the_pooled_past_are_uncorrelated_and_from_a_fixed_reference_are_not() -> (
    None
):
    rng = np.random.default_rng(8)
    sizes, noise, runs = [2_000, 1_000, 3_000, 1_000], [18.0, 18.0, 30.0, 10.0], 20_000
    reports = [
        shares_of(rng.multinomial(size, EVEN, runs) + rng.normal(0, sd, (runs, 10)), sd)
        for size, sd in zip(sizes, noise, strict=True)
    ]
    past, pooled, fixed = reports[0], [], []
    for report in reports[1:]:
        pooled.append((report.shares - past.shares)[:, 0])
        fixed.append((report.shares - reports[0].shares)[:, 0])
        past = past.pooled_with(report)
    assert np.abs(np.corrcoef(pooled) - np.eye(3)).max() < 0.03
    assert np.abs(np.corrcoef(fixed) - np.eye(3)).max() > 0.2


def test_sites_together_keep_the_error_rate_though_each_has_its_own_case_mix() -> None:
    rng = np.random.default_rng(21)
    laws = rng.dirichlet(np.full(8, 20.0), 12)
    sizes = rng.integers(500, 5_000, 12)
    p_values = []
    for _ in range(3_000):
        current = np.stack([rng.multinomial(n, q) for n, q in zip(sizes, laws, strict=True)])
        past = np.stack([rng.multinomial(2 * n, q) for n, q in zip(sizes, laws, strict=True)])
        noisy = [shares_of(item + rng.normal(0, 18, item.shape), 18.0) for item in (current, past)]
        contrast = stratified(contrast_of(noisy[0], noisy[1]))
        p_values.append(
            [
                ordered_drift(contrast, np.full(7, 0.3)).p_value[0],
                unordered_drift(contrast).p_value[0],
                share_drift(contrast, 0).p_value[0],
            ]
        )
    rates = (np.array(p_values) <= 0.01).mean(axis=0)
    assert (rates < 0.017).all()
    assert (rates > 0.004).all()
