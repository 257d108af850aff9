"""Robust aggregation against slow references of pure Python and exact fractions, in any order."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.robust_aggregation import (
    Aggregation,
    KrumMean,
    MedianNormBoundedMean,
    MedianOfUpdates,
    NormBoundedMean,
    TrimmedMeanOfUpdates,
)

SHAPES = {"weight": (1, 3), "bias": (2,)}
LENGTH = 5
NUMBERS = st.floats(-100, 100, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)
Updates = list[tuple[list[float], int]]


def updates_of(least: int, most: int = 11) -> st.SearchStrategy[Updates]:
    return st.lists(
        st.tuples(st.lists(NUMBERS, min_size=LENGTH, max_size=LENGTH), st.integers(20, 1_000_000)),
        min_size=least,
        max_size=most,
    )


def flat(aggregation: Aggregation, updates: Updates) -> npt.NDArray[np.float64]:
    """What an aggregation makes of updates, its arrays in the order of `SHAPES`."""
    for values, weight in updates:
        row = np.array(values, dtype=np.float32)
        aggregation.add({"weight": row[:3].reshape(1, 3), "bias": row[3:]}, weight=float(weight))
    mean = aggregation.mean()
    assert {name: array.shape for name, array in mean.items()} == SHAPES
    return np.concatenate([mean[name].ravel() for name in SHAPES])


def slow_median(updates: Updates) -> list[float]:
    return [statistics.median(values[place] for values, _ in updates) for place in range(LENGTH)]


def slow_trimmed(updates: Updates, trimmed: int) -> list[float]:
    found = []
    for place in range(LENGTH):
        left = sorted(values[place] for values, _ in updates)[trimmed : len(updates) - trimmed]
        found.append(float(sum(map(Fraction, left)) / len(left)))
    return found


def slow_norm_bounded(updates: Updates, most: float) -> list[float]:
    total = sum(weight for _, weight in updates)
    shares = []
    for values, weight in updates:
        norm = math.sqrt(math.fsum(value**2 for value in values))
        shares.append(weight / total * (1 if norm <= most else most / norm))
    return [
        math.fsum(share * values[place] for (values, _), share in zip(updates, shares, strict=True))
        for place in range(LENGTH)
    ]


def slow_krum_scores(rows: Sequence[Sequence[float]], dishonest: int) -> list[Fraction]:
    scores: list[Fraction] = []
    for place, row in enumerate(rows):
        distances = sorted(
            sum(
                ((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(row, other, strict=True)),
                Fraction(),
            )
            for number, other in enumerate(rows)
            if number != place
        )
        scores.append(sum(distances[: len(rows) - dishonest - 2], Fraction()))
    return scores


@given(updates_of(1))
@settings(max_examples=100, deadline=None)
def test_the_median_is_the_median_of_each_parameter(updates: Updates) -> None:
    np.testing.assert_allclose(flat(MedianOfUpdates(SHAPES), updates), slow_median(updates))


@given(st.integers(1, 3).flatmap(lambda f: st.tuples(st.just(f), updates_of(2 * f + 1))))
@settings(max_examples=100, deadline=None)
def test_the_trimmed_mean_leaves_out_so_many_at_either_end(drawn: tuple[int, Updates]) -> None:
    trimmed, updates = drawn
    found = flat(TrimmedMeanOfUpdates(SHAPES, trimmed=trimmed), updates)
    np.testing.assert_allclose(found, slow_trimmed(updates, trimmed), rtol=1e-12, atol=1e-12)


@given(updates_of(1), st.floats(0.1, 200))
@settings(max_examples=100, deadline=None)
def test_a_public_norm_bound_scales_longer_updates_down(updates: Updates, most: float) -> None:
    found = flat(NormBoundedMean(SHAPES, norm_max=most), updates)
    np.testing.assert_allclose(found, slow_norm_bounded(updates, most), rtol=1e-6, atol=1e-6)


@given(updates_of(1))
@settings(max_examples=100, deadline=None)
def test_the_median_norm_bounds_the_longer_half(updates: Updates) -> None:
    norms = [math.sqrt(math.fsum(value**2 for value in values)) for values, _ in updates]
    found = flat(MedianNormBoundedMean(SHAPES), updates)
    slow = slow_norm_bounded(updates, statistics.median(norms))
    np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 3).flatmap(lambda f: st.tuples(st.just(f), updates_of(2 * f + 3))))
@settings(max_examples=80, deadline=None)
def test_multi_krum_averages_updates_whose_exact_scores_are_lowest(
    drawn: tuple[int, Updates],
) -> None:
    dishonest, updates = drawn
    rows = [values for values, _ in updates]
    selected = len(rows) - dishonest - 2
    found = flat(KrumMean(SHAPES, dishonest_sites=dishonest, selected=selected), updates)
    scores = slow_krum_scores(rows, dishonest)
    limit = sorted(scores)[selected - 1]
    # Updates that tie for the last place may stand for each other.
    slack = Fraction(1, 10**9) * max(scores)
    below = [row for row, score in zip(rows, scores, strict=True) if score < limit - slack]
    tied = [row for row, score in zip(rows, scores, strict=True) if abs(score - limit) <= slack]
    assert any(
        np.allclose(found, np.mean([*below, *chosen], axis=0), rtol=1e-9, atol=1e-9)
        for chosen in itertools.combinations(tied, selected - len(below))
    )


AGGREGATIONS: list[Callable[[], Aggregation]] = [
    lambda: MedianOfUpdates(SHAPES),
    lambda: TrimmedMeanOfUpdates(SHAPES, trimmed=1),
    lambda: MedianNormBoundedMean(SHAPES),
    lambda: KrumMean(SHAPES, dishonest_sites=1, selected=2),
]


@pytest.mark.parametrize("make", AGGREGATIONS, ids=["median", "trimmed", "norm", "krum"])
@given(updates=updates_of(5), random=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_in_which_sites_answer_changes_no_bit(
    make: Callable[[], Aggregation], updates: Updates, random: object
) -> None:
    shuffled = list(updates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert (flat(make(), updates) == flat(make(), shuffled)).all()


@pytest.mark.parametrize("make", AGGREGATIONS[:2], ids=["median", "trimmed"])
@given(honest=updates_of(2), lie=st.lists(NUMBERS, min_size=LENGTH, max_size=LENGTH))
@settings(max_examples=80, deadline=None)
def test_one_liar_moves_no_parameter_beyond_what_honest_sites_sent(
    make: Callable[[], Aggregation], honest: Updates, lie: list[float]
) -> None:
    found = flat(make(), [*honest, ([1e6 * value for value in lie], 10**9)])
    columns = np.array([values for values, _ in honest])
    slack = 1e-9 * np.abs(columns).max()
    assert (found >= columns.min(axis=0) - slack).all()
    assert (found <= columns.max(axis=0) + slack).all()
