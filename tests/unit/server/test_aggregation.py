"""The streaming mean: weighted, exact to rounding, and never without an update."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from common.errors import RoundFailed
from server.aggregation import WeightedMean

SHAPES = {"weight": (1, 3), "bias": (1,)}


def _update(value: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, dtype=np.float32) for name, shape in SHAPES.items()}


def test_nothing_is_no_mean() -> None:
    with pytest.raises(RoundFailed):
        WeightedMean(SHAPES).mean()


def test_one_update_is_its_own_mean() -> None:
    mean = WeightedMean(SHAPES)
    mean.add(_update(0.25), weight=303)
    assert all((value == 0.25).all() for value in mean.mean().values())
    assert mean.count == 1


def test_weights_count() -> None:
    mean = WeightedMean(SHAPES)
    mean.add(_update(1.0), weight=100)
    mean.add(_update(5.0), weight=300)
    assert all((value == 4.0).all() for value in mean.mean().values())
    assert mean.weight == 400


def test_the_mean_is_float64_and_asking_twice_changes_nothing() -> None:
    mean = WeightedMean(SHAPES)
    mean.add(_update(0.1), weight=7)
    first, second = mean.mean(), mean.mean()
    assert {value.dtype for value in first.values()} == {np.dtype(np.float64)}
    assert all((first[name] == second[name]).all() for name in SHAPES)


def test_an_update_is_not_changed_and_not_kept() -> None:
    mean, update = WeightedMean(SHAPES), _update(2.0)
    mean.add(update, weight=3)
    assert (update["weight"] == 2.0).all()
    update["weight"][:] = 99
    assert (mean.mean()["weight"] == 2.0).all()


def test_memory_does_not_grow_with_the_number_of_sites() -> None:
    shapes = {"weight": (100_000,)}
    mean = WeightedMean(shapes)
    tracemalloc.start()
    try:
        for number in range(50):
            mean.add({"weight": np.full(100_000, number, dtype=np.float32)}, weight=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 400_000
