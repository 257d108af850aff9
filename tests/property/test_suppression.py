"""No suppressed count can be worked out from what a shareable report shows."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from site_client.quality.suppression import Hidden, Shown, shown_alone, shown_parts

COUNTS = st.lists(
    st.one_of(st.integers(0, 12), st.integers(0, 200), st.just(0)), min_size=2, max_size=9
)


def bounds_of(shown: Shown) -> tuple[float, float | None]:
    """What a reader knows of a count by its text."""
    if shown is Hidden.SMALL:
        return 0, 9
    if shown is Hidden.HELD_BACK:
        return 10, None
    if isinstance(shown, Hidden):
        return 0, None
    return max(10, shown - 2), shown + 2


def feasible_range(shown: tuple[Shown, ...], place: int, total: int) -> tuple[float, float]:
    """Return the least and most that a count may be, by linear programming.

    One sum with whole bounds has whole vertices, so that all whole numbers between are possible.
    """
    found = []
    for sign in (1, -1):
        cost = np.zeros(len(shown))
        cost[place] = sign
        answer = linprog(
            cost,
            A_eq=[[1] * len(shown)],
            b_eq=[total],
            bounds=[bounds_of(item) for item in shown],
        )
        assert answer.success
        found.append(sign * answer.fun)
    return found[0], found[1]


@given(COUNTS)
@settings(max_examples=120)
@example([0, 0, 5, 100])
@example([9, 10])
@example([3, 10, 10])
@example([0, 0, 0, 995])
def test_every_small_count_may_be_anything_below_ten_though_the_total_is_known_exactly(
    counts: list[int],
) -> None:
    shown = shown_parts(counts)
    for place, item in enumerate(shown):
        if item is Hidden.SMALL:
            least, most = feasible_range(shown, place, sum(counts))
            assert (round(least, 6), round(most, 6)) == (0, 9)


@given(COUNTS)
def test_what_is_shown_is_true_and_never_exact(counts: list[int]) -> None:
    shown = shown_parts(counts)
    assert len(shown) == len(counts)
    for count, item in zip(counts, shown, strict=True):
        if isinstance(item, int):
            assert item % 5 == 0 and abs(item - count) <= 2 and count >= 10
        elif item is Hidden.SMALL:
            assert count < 10
        elif item is Hidden.HELD_BACK:
            assert count >= 10


@given(st.lists(st.integers(10, 10_000), min_size=1, max_size=9))
def test_nothing_is_held_back_where_nothing_is_small(counts: list[int]) -> None:
    assert shown_parts(counts) == tuple(shown_alone(count) for count in counts)


def test_who_replays_the_rule_on_every_possible_table_is_never_left_with_one_number() -> None:
    for parts, totals in ((2, range(10, 60)), (3, range(10, 75, 8)), (4, (40,))):
        for total in totals:
            alike: dict[tuple[Shown, ...], list[tuple[int, ...]]] = defaultdict(list)
            for first in itertools.product(range(total + 1), repeat=parts - 1):
                if sum(first) <= total:
                    counts = (*first, total - sum(first))
                    alike[shown_parts(counts)].append(counts)
            for shown, tables in alike.items():
                for place, item in enumerate(shown):
                    if item is Hidden.SMALL:
                        assert len({table[place] for table in tables}) >= 4
