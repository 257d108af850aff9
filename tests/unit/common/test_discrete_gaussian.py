"""The sampler against its exact distribution, and that it never leaves the integers."""

from __future__ import annotations

import ast
import inspect
import math
import random
from collections import Counter
from fractions import Fraction
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy import discrete_gaussian as module
from common.privacy.discrete_gaussian import (
    Words,
    _below,
    _bernoulli,
    _bernoulli_exp,
    discrete_gaussian,
    system_words,
    variance_of,
)

DRAWS = 20_000


def seeded_words(seed: int) -> Words:
    source = random.Random(seed)
    return (source.getrandbits(32) for _ in count())


def chi_square_excess(draws: list[int], probability: dict[int, float]) -> float:
    """Chi-square over cells of at least 10 expected draws, in standard deviations above its mean.

    All that is expected less often is one cell.
    """
    counts = Counter(draws)
    common = {x: len(draws) * p for x, p in probability.items() if len(draws) * p >= 10}
    rest = max(len(draws) - sum(common.values()), 1.0)
    rare = sum(number for x, number in counts.items() if x not in common)
    statistic = sum((counts[x] - expected) ** 2 / expected for x, expected in common.items())
    statistic += (rare - rest) ** 2 / rest
    freedom = len(common)
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("noise_multiplier", [0.3, 0.5, 1.0, 1.7299, 4.0, 25.5])
def test_draws_have_the_exact_distribution(noise_multiplier: float) -> None:
    variance = variance_of(noise_multiplier)
    words = seeded_words(7)
    draws = [discrete_gaussian(variance, words) for _ in range(DRAWS)]
    reach = math.ceil(10 * noise_multiplier) + 1
    weights = {x: math.exp(-x * x / (2 * noise_multiplier**2)) for x in range(-reach, reach + 1)}
    total = sum(weights.values())
    assert chi_square_excess(draws, {x: w / total for x, w in weights.items()}) < 4


def test_the_test_would_notice_a_rounded_continuous_normal() -> None:
    source = random.Random(7)
    draws = [round(source.gauss(0, 0.5)) for _ in range(DRAWS)]
    weights = {x: math.exp(-x * x / 0.5) for x in range(-6, 7)}
    total = sum(weights.values())
    assert chi_square_excess(draws, {x: w / total for x, w in weights.items()}) > 20


def test_draws_from_the_operating_system_have_the_stated_spread() -> None:
    variance, words = variance_of(6.0), system_words()
    draws = [discrete_gaussian(variance, words) for _ in range(DRAWS)]
    assert abs(sum(draws) / DRAWS) < 6 * 6.0 / math.sqrt(DRAWS)
    assert abs(sum(x * x for x in draws) / DRAWS / 36 - 1) < 6 * math.sqrt(2 / DRAWS)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**30), st.integers(1, 10**30), st.integers(0, 2**31))
def test_a_bernoulli_draw_compares_its_bits_with_the_exact_quotient(
    over: int, under: int, seed: int
) -> None:
    over = min(over, under)
    answer = _bernoulli(over, under, seeded_words(seed))
    number = Fraction(0)
    for place, word in enumerate(islice(seeded_words(seed), 12), start=1):
        number += Fraction(word, 1 << (32 * place))
    assert answer == (number < Fraction(over, under))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 40), st.integers(1, 20))
def test_an_exponential_draw_has_its_probability(over: int, under: int) -> None:
    words = seeded_words(over * 100 + under)
    hits = sum(_bernoulli_exp(over, under, words) for _ in range(4000))
    expected = math.exp(-over / under)
    assert abs(hits / 4000 - expected) <= 5 * math.sqrt(expected * (1 - expected) / 4000) + 1e-3


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 2**32, 2**32 + 1, 10**20])
def test_a_uniform_draw_stays_below_its_bound(bound: int) -> None:
    words = seeded_words(bound)
    draws = [_below(bound, words) for _ in range(2000)]
    assert 0 <= min(draws) <= max(draws) < bound
    assert abs(sum(draws) / 2000 - (bound - 1) / 2) <= 5 * bound / math.sqrt(12 * 2000)


def test_the_variance_is_the_square_of_the_decimal_in_the_record() -> None:
    assert variance_of(1.7299) == Fraction(17299, 10_000) ** 2
    assert variance_of(4.0) == 16


def test_the_sampler_has_no_float_no_division_and_no_other_source_of_numbers() -> None:
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) in {
                ("math", "isqrt"),
                ("os", "urandom"),
                ("variance", "numerator"),
                ("variance", "denominator"),
                ("drawn", "bit_length"),
                ("bound", "bit_length"),
                ("words", "frombytes"),
                ("words", "itemsize"),
            }
    draw = discrete_gaussian(variance_of(2.5), system_words())
    assert type(draw) is int
