"""The streaming mean against an exact slow one, in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from server.aggregation import WeightedMean

Array32 = npt.NDArray[np.float32]
LENGTH = 4
NUMBERS = st.floats(-1e3, 1e3, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)
UPDATES = st.lists(
    st.tuples(
        st.lists(NUMBERS, min_size=LENGTH, max_size=LENGTH),
        st.integers(min_value=20, max_value=100_000_000),
    ),
    min_size=1,
    max_size=12,
)
Weighted = list[tuple[list[float], int]]


def _mean(updates: Weighted) -> npt.NDArray[np.float64]:
    mean = WeightedMean({"weight": (LENGTH,)})
    for values, weight in updates:
        mean.add({"weight": np.array(values, dtype=np.float32)}, weight=float(weight))
    return mean.mean()["weight"]


def _size(updates: Weighted) -> npt.NDArray[np.float64]:
    """Return the mean of magnitudes: what a relative error is relative to when signs cancel."""
    return _mean([([abs(value) for value in values], weight) for values, weight in updates])


@given(UPDATES)
@settings(max_examples=150, deadline=None)
def test_the_mean_equals_exact_fractions(updates: Weighted) -> None:
    total = sum(weight for _, weight in updates)
    exact = [
        float(sum(Fraction(values[place]) * weight for values, weight in updates) / total)
        for place in range(LENGTH)
    ]
    assert (np.abs(_mean(updates) - exact) <= 1e-12 * _size(updates)).all()


@given(UPDATES, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_sites_does_not_matter(updates: Weighted, random: object) -> None:
    shuffled = list(updates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    difference = np.abs(_mean(updates) - _mean(shuffled))
    assert (difference <= 1e-12 * _size(updates)).all()


@given(UPDATES, st.integers(min_value=1, max_value=7))
@settings(max_examples=100, deadline=None)
def test_only_the_ratio_of_weights_matters(updates: Weighted, factor: int) -> None:
    scaled = [(values, weight * factor) for values, weight in updates]
    assert (np.abs(_mean(updates) - _mean(scaled)) <= 1e-12 * _size(updates)).all()


@given(UPDATES)
@settings(max_examples=100, deadline=None)
def test_the_mean_lies_between_the_least_and_the_greatest(updates: Weighted) -> None:
    columns = np.array([values for values, _ in updates], dtype=np.float64)
    mean, slack = _mean(updates), 1e-12 * _size(updates)
    assert (mean >= columns.min(axis=0) - slack).all()
    assert (mean <= columns.max(axis=0) + slack).all()
