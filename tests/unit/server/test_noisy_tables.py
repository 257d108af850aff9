"""Mutual information from noisy tables: exact without noise, right on average with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.metrics import mutual_info_score

from common.study.contingency import ContingencyTable
from server.noisy_tables import (
    NoisyTable,
    denoise,
    estimate_information,
    joint_information,
    label_entropy,
    label_totals,
    mutual_information,
    split_tables,
    told_from_noise,
)


def counted(x: np.ndarray, y: np.ndarray, *, noise: float = 0.0, seed: int = 0) -> NoisyTable:
    counts = np.zeros((int(x.max()) + 1, 2))
    np.add.at(counts, (x, y), 1)
    rng = np.random.default_rng(seed)
    return NoisyTable((0,), counts + rng.normal(0, noise, counts.shape).round(), noise)


def related(patients: int, *, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, patients)
    return x, (rng.random(patients) < 1 / (1 + np.exp(1 - slope * x))).astype(int)


def test_without_noise_the_information_is_scikit_learns() -> None:
    for seed in range(5):
        x, y = related(500, slope=0.7, seed=seed)
        found = mutual_information(counted(x, y).counts)
        assert found == pytest.approx(mutual_info_score(x, y), abs=1e-12)


def test_without_noise_a_pair_s_information_is_scikit_learns_of_the_joined_classes() -> None:
    x, y = related(800, slope=0.7)
    other = np.random.default_rng(9).integers(0, 4, 800)
    pair = counted(4 * x + other, y)
    assert mutual_information(pair.counts) == pytest.approx(mutual_info_score(4 * x + other, y))
    corrected = joint_information(pair, pair.counts.sum(axis=0))
    # What chance adds to twelve classes by two outcomes: eleven degrees of freedom over 2 n.
    expected = mutual_info_score(4 * x + other, y) - 11 / (2 * 800)
    assert corrected == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0])
def test_with_noise_the_estimate_is_right_on_average(slope: float) -> None:
    x, y = related(4000, slope=slope)
    truth = mutual_info_score(x, y)
    exact = counted(x, y)
    totals = exact.counts.sum(axis=0)
    found = [
        estimate_information(counted(x, y, noise=60, seed=seed), totals).value for seed in range(60)
    ]
    plugged = [
        mutual_information(denoise(counted(x, y, noise=60, seed=seed), totals))
        for seed in range(60)
    ]
    assert np.mean(found) == pytest.approx(truth, abs=2.5e-3)
    assert abs(np.mean(found) - truth) < abs(np.mean(plugged) - truth)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        x, y = related(3000, slope=0.6, seed=seed)
        table = counted(x, y, noise=40, seed=seed)
        found = estimate_information(table, np.bincount(y).astype(float))
        many, outcome = related(300_000, slope=0.6, seed=1000)
        held += found.low <= mutual_info_score(many, outcome) <= found.high
    assert held >= 51  # of 60; at 95 %, fewer once in a thousand


def test_p_values_without_a_relation_are_even_and_with_one_are_small() -> None:
    p_values = []
    for seed in range(200):
        x, y = related(2000, slope=0.0, seed=seed)
        table = counted(x, y, noise=30, seed=seed)
        p_values.append(estimate_information(table, np.bincount(y).astype(float)).p_value)
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(p_values) < 0.05) <= 0.1
    x, y = related(2000, slope=0.8)
    table = counted(x, y, noise=30)
    assert estimate_information(table, np.bincount(y).astype(float)).p_value < 1e-4


def test_believed_relations_are_those_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        p_values = np.concatenate([rng.random(30), rng.random(5) * 0.01])
        expected = false_discovery_control(p_values, method="bh") <= 0.1
        assert list(told_from_noise(p_values.tolist())) == expected.tolist()
    assert told_from_noise([1.0]) == (False,)


def test_denoised_counts_are_the_nearest_without_negative_ones() -> None:
    table = NoisyTable((0,), np.array([[50.0, -7.0], [-20.0, 30.0], [10.0, 17.0]]), 10.0)
    totals = np.array([45.0, 38.0])
    found = denoise(table, totals)
    assert (found >= 0).all()
    assert found.sum(axis=0) == pytest.approx(totals)
    # Oracle: no small move between two cells of an outcome comes nearer.
    rng = np.random.default_rng(0)
    best = ((found - table.counts) ** 2).sum()
    for _ in range(500):
        moved = found.copy()
        label = rng.integers(2)
        source, target = rng.permutation(3)[:2]
        step = min(rng.random() * 3, moved[source, label])
        moved[source, label] -= step
        moved[target, label] += step
        assert ((moved - table.counts) ** 2).sum() >= best - 1e-9


def test_outcomes_are_counted_from_all_tables_together() -> None:
    rng = np.random.default_rng(2)
    tables = [
        NoisyTable((place,), np.full((2, 2), 500.0) + rng.normal(0, 50, (2, 2)), 50.0)
        for place in range(200)
    ]
    assert label_totals(tables) == pytest.approx([1000, 1000], abs=20)
    assert label_entropy(np.array([1.0, 1.0])) == pytest.approx(np.log(2))
    assert (label_totals([NoisyTable((0,), np.full((2, 2), -9.0), 50.0)]) == 1).all()


def test_cells_are_cut_into_their_tables() -> None:
    tables = (ContingencyTable((0,), (2, 2)), ContingencyTable((0, 1), (2, 3, 2)))
    first, second = split_tables(np.arange(16), tables, noise=2.5)
    assert first.counts.tolist() == [[0, 1], [2, 3]]
    assert second.counts.shape == (6, 2)
    assert second.counts[-1].tolist() == [14, 15]
    assert (second.candidates, second.noise) == ((0, 1), 2.5)
