"""Which aggregation a plan gets, what liars can do to it, and what it does to memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from common.errors import RoundFailed
from common.protocol.messages import TaskKind
from server import robust_aggregation
from server.aggregation import WeightedMean
from server.robust_aggregation import (
    Aggregation,
    KrumMean,
    MedianNormBoundedMean,
    MedianOfUpdates,
    NormBoundedMean,
    TrimmedMeanOfUpdates,
    aggregation_of,
    squared_distances,
)
from tests.lib.plans import make_plan

SHAPES = {"w": (2,)}
CHOICES = [
    ({"kind": "weighted_mean"}, WeightedMean),
    ({"kind": "norm_bound", "norm_max": 1.5}, NormBoundedMean),
    ({"kind": "norm_bound", "norm_max": "median"}, MedianNormBoundedMean),
    ({"kind": "trimmed_mean", "dishonest_sites": 1}, TrimmedMeanOfUpdates),
    ({"kind": "median", "dishonest_sites": 1}, MedianOfUpdates),
    ({"kind": "multi_krum", "dishonest_sites": 1}, KrumMean),
]


def mean_of(aggregation: Aggregation, *updates: tuple[float, float]) -> list[float]:
    for update in updates:
        aggregation.add({"w": np.array(update, dtype=np.float32)}, weight=100)
    return [float(value) for value in aggregation.mean()["w"]]


@pytest.mark.parametrize(("chosen", "made"), CHOICES, ids=str)
def test_a_training_round_is_aggregated_as_the_plan_says(
    chosen: dict[str, object], made: type
) -> None:
    plan = make_plan(training__aggregation=chosen, training__quorum=5)
    found = aggregation_of(plan, TaskKind.TRAIN, SHAPES)
    assert type(found) is made


@pytest.mark.parametrize("kind", [TaskKind.SCALE, TaskKind.EVALUATE, TaskKind.COUNT])
def test_sums_over_patients_are_summed_whatever_the_plan_says(kind: TaskKind) -> None:
    plan = make_plan(
        training__aggregation={"kind": "median", "dishonest_sites": 1}, training__quorum=3
    )
    assert type(aggregation_of(plan, kind, SHAPES)) is WeightedMean


@pytest.mark.parametrize(("chosen", "made"), CHOICES, ids=str)
def test_nothing_is_no_aggregate(chosen: dict[str, object], made: type) -> None:
    plan = make_plan(training__aggregation=chosen, training__quorum=5)
    with pytest.raises(RoundFailed):
        aggregation_of(plan, TaskKind.TRAIN, SHAPES).mean()


def test_krum_leaves_out_the_update_far_from_all_others() -> None:
    honest = [(1.0, 1.0), (1.1, 0.9), (0.9, 1.0), (1.0, 1.1)]
    for lie in [(-50.0, 3.0), (1e6, 1e6)]:
        found = mean_of(KrumMean(SHAPES, dishonest_sites=1, selected=2), *honest, lie)
        assert all(0.9 <= value <= 1.1 for value in found)


def test_the_median_norm_holds_a_site_that_boosts_its_update() -> None:
    honest = [(0.3, 0.4), (0.4, 0.3), (-0.3, 0.4), (0.5, 0.0)]
    boosted = mean_of(MedianNormBoundedMean(SHAPES), *honest, (3e5, 4e5))
    plain = mean_of(MedianNormBoundedMean(SHAPES), *honest, (0.3, 0.4))
    np.testing.assert_allclose(boosted, plain, rtol=1e-6)


def test_distances_of_close_updates_far_from_zero_keep_their_digits() -> None:
    rows = [np.array([1e4, 1e4], np.float32), np.array([1e4, 1e4 + 2**-9], np.float32)]
    rows[1][1] = np.nextafter(np.float32(1e4), np.float32(2e4))
    gap = float(rows[1][1]) - 1e4
    assert squared_distances(rows)[0, 1] == gap**2


def test_blocks_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(7, 50)).astype(np.float32)

    def found() -> list[list[float]]:
        made: list[Aggregation] = [
            MedianOfUpdates({"w": (50,)}),
            TrimmedMeanOfUpdates({"w": (50,)}, trimmed=2),
            KrumMean({"w": (50,)}, dishonest_sites=2, selected=3),
        ]
        for aggregation in made:
            for update in updates:
                aggregation.add({"w": update}, weight=1)
        return [aggregation.mean()["w"].tolist() for aggregation in made]

    whole = found()
    monkeypatch.setattr(robust_aggregation, "BLOCK_NUMBERS", 21)
    for one, other in zip(whole, found(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_order_statistics_hold_one_float32_copy_of_each_update_and_bounded_blocks() -> None:
    length, sites = 200_000, 20
    aggregation = TrimmedMeanOfUpdates({"w": (length,)}, trimmed=2)
    tracemalloc.start()
    try:
        for number in range(sites):
            aggregation.add({"w": np.full(length, number, dtype=np.float32)}, weight=1)
        aggregation.mean()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = 4 * 8 * robust_aggregation.BLOCK_NUMBERS
    assert peak < 4 * length * sites * 1.2 + blocks
