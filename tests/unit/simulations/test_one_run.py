"""The one-run audit's arithmetic against slow exact sums and published numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from simulations.audit.one_run import audit_guesses, epsilon_lower_bound, p_value


def exact_tail(guesses: int, correct: int, chance: Fraction) -> Fraction:
    """P[Binomial(guesses, chance) >= correct], in whole numbers."""
    return sum(
        (
            math.comb(guesses, k) * chance**k * (1 - chance) ** (guesses - k)
            for k in range(max(0, correct), guesses + 1)
        ),
        Fraction(0),
    )


def chance_of(epsilon: float) -> Fraction:
    return Fraction(math.exp(epsilon) / (1 + math.exp(epsilon)))


@pytest.mark.parametrize(("guesses", "correct"), [(1, 1), (10, 7), (60, 41), (60, 60), (60, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_without_delta_the_p_value_is_the_exact_binomial_tail(
    guesses: int, correct: int, epsilon: float
) -> None:
    found = p_value(canaries=100, guesses=guesses, correct=correct, epsilon=epsilon, delta=0.0)
    assert found == pytest.approx(float(exact_tail(guesses, correct, chance_of(epsilon))), rel=1e-9)


@pytest.mark.parametrize(("guesses", "correct"), [(10, 7), (40, 33), (40, 40)])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_with_delta_the_p_value_is_theorem_5_2(guesses: int, correct: int, delta: float) -> None:
    epsilon, canaries = 0.8, 50
    chance = chance_of(epsilon)
    tail = exact_tail(guesses, correct, chance)
    gain = max((exact_tail(guesses, correct - i, chance) - tail) / i for i in range(1, correct + 1))
    expected = min(1.0, float(tail) + 2 * canaries * delta * float(gain))
    found = p_value(
        canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta
    )
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("correct", "epsilon"), [(130, 0.37), (150, 0.82), (170, 1.40), (190, 2.39), (200, 4.17)]
)
def test_lower_bounds_are_those_of_an_independent_implementation(
    correct: int, epsilon: float
) -> None:
    found = epsilon_lower_bound(canaries=1000, guesses=200, correct=correct, delta=1e-5)
    assert found == pytest.approx(epsilon, abs=0.006)


def test_guessing_by_a_coin_shows_nothing_and_more_right_guesses_never_show_less() -> None:
    bounds = [
        epsilon_lower_bound(canaries=500, guesses=100, correct=v, delta=1e-5) for v in range(101)
    ]
    assert bounds[50] == 0.0
    assert bounds == sorted(bounds)


def test_randomised_response_of_known_epsilon_is_bounded_below_in_95_of_100_audits() -> None:
    # Each canary's bit told truthfully with probability e^eps / (1 + e^eps): epsilon is exact.
    rng = np.random.default_rng(8)
    epsilon, above = 1.0, 0
    truthful = math.exp(epsilon) / (1 + math.exp(epsilon))
    for _ in range(400):
        included = rng.random(500) < 0.5
        told = np.where(rng.random(500) < truthful, included, ~included)
        result = audit_guesses(told + 1e-6 * rng.random(500), included, delta=0.0)
        above += result.epsilon_min > epsilon
    assert above <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)
    assert above > 0  # the bound is tight for this mechanism


def test_the_number_of_guesses_is_fixed_by_the_number_of_canaries() -> None:
    rng = np.random.default_rng(1)
    for canaries in (2, 10, 999):
        scores = rng.normal(size=canaries)
        result = audit_guesses(scores, rng.random(canaries) < 0.5, delta=1e-5)
        assert result.guesses <= 0.4 * canaries or canaries == 2
        assert (
            result.guesses == audit_guesses(-scores, rng.random(canaries) < 0.5, delta=1e-5).guesses
        )
