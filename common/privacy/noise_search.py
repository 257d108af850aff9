"""Search for the smallest noise multiplier on a grid that keeps a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from common import limits
from common.errors import AccountingError

GRID: Final = 10_000
"""Noise multipliers are whole multiples of 1/10,000: equal on every machine and short to read."""


def gaussian_guess(epsilon: float, delta: float) -> float:
    """Return about the noise multiplier with which one Gaussian release spends (epsilon, delta)."""
    tail = math.sqrt(2 * math.log(1 / delta))
    return (tail + math.sqrt(tail * tail + 2 * epsilon)) / (2 * epsilon)


def smallest_noise(
    spent: Callable[[float], float],
    epsilon: float,
    *,
    guess: float,
    noise_multiplier_max: float = limits.NOISE_MULTIPLIER_MAX,
) -> float:
    """Search the grid for the smallest noise with `spent(noise) <= epsilon`."""
    good, bad = _bracket(spent, epsilon, guess, noise_multiplier_max)
    for turn in range(200):
        if good - bad <= 1:
            return good / GRID
        middle = (good + bad) // 2
        if turn % 3 != 2:  # two interpolations, then one halving: fast, and never stuck
            middle = min(max(_interpolate(spent, epsilon, good, bad), bad + 1), good - 1)
        if spent(middle / GRID) <= epsilon:
            good = middle
        else:
            bad = middle
    raise _no_noise(epsilon, noise_multiplier_max)


def _bracket(
    spent: Callable[[float], float], epsilon: float, guess: float, noise_multiplier_max: float
) -> tuple[int, int]:
    """Return grid numbers (good, bad): good keeps the budget, bad does not or is off the grid."""
    lowest = math.ceil(limits.NOISE_MULTIPLIER_MIN * GRID)
    highest = math.floor(noise_multiplier_max * GRID)
    # For an epsilon near zero the guess is infinite.
    good = max(round(min(guess, noise_multiplier_max) * GRID), lowest)
    good = min(good, highest)
    while spent(good / GRID) > epsilon:
        if good == highest:
            raise _no_noise(epsilon, noise_multiplier_max)
        good = min(good * 2, highest)
    bad = good
    while spent(bad / GRID) <= epsilon:
        good = bad
        if bad == lowest:
            return good, lowest - 1  # the floor of the grid is enough
        bad = max(bad * 2 // 3, lowest)
    return good, bad


def _interpolate(spent: Callable[[float], float], epsilon: float, good: int, bad: int) -> int:
    # log(epsilon) is close to linear in log(noise); `spent` is cached, so asking again is free.
    over = math.log(spent(bad / GRID) / epsilon)
    under = math.log(max(spent(good / GRID), 1e-12) / epsilon)
    share = over / (over - under) if over > under else 0.5
    return round(bad * math.pow(good / bad, share))


def _no_noise(epsilon: float, noise_multiplier_max: float) -> AccountingError:
    return AccountingError(
        "no noise keeps the plan inside its budget",
        expected=f"a noise multiplier up to {noise_multiplier_max:.0f}",
        arrived=f"epsilon={epsilon} for more steps or releases than it can pay",
        todo="plan fewer rounds, steps or releases, or a larger epsilon",
    )
