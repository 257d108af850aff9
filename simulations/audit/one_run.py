"""The one-run audit: from guesses about canaries to a lower bound on epsilon.

Each of m canaries is in or out by a fair coin. An auditor guesses r of them and abstains on the
rest. Under (epsilon, delta)-DP the number of correct guesses is hardly larger than a binomial of r
trials with success probability e^epsilon / (1 + e^epsilon). Many correct guesses therefore prove a
larger epsilon; few prove nothing. (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, Theorem 5.2
and Appendix D.)

Canaries may be spread over several shadow studies. A canary touches one study only, so all studies
together are one (epsilon, delta)-DP mechanism of all canaries, and the theorem holds for the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom

CONFIDENCE: Final = 0.95
GUESSED_FRACTION: Final = 0.4
"""Share of canaries that are guessed, fixed before the scores are seen: half of them as included,
half as excluded. More guesses can show larger epsilons; fewer are each more certain."""
_EPSILON_MAX: Final = 100.0


@dataclass(frozen=True)
class OneRunResult:
    """What the guesses show.

    Args:
        canaries: m, all of them.
        guesses: r, fixed in advance.
        correct: v, of the guesses.
        delta: at which epsilon is bounded.
        epsilon_min: with `CONFIDENCE`, the true epsilon at `delta` is at least this.
        epsilon_min_possible: what `epsilon_min` would be with every guess right.
    """

    canaries: int
    guesses: int
    correct: int
    delta: float
    epsilon_min: float
    epsilon_min_possible: float


def p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the largest probability of so many correct guesses under (epsilon, delta)-DP.

    Args:
        canaries: m.
        guesses: r <= m, fixed in advance.
        correct: v <= r.
        epsilon, delta: the hypothesis.
    """
    chance = float(expit(epsilon))
    tail = float(binom.sf(correct - 1, guesses, chance))
    if delta == 0 or correct == 0:
        return tail
    fewer = np.arange(1, correct + 1)
    gains = (binom.sf(correct - fewer - 1, guesses, chance) - tail) / fewer
    return min(1.0, tail + 2 * canaries * delta * max(0.0, float(gains.max())))


def epsilon_lower_bound(
    *, canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Return the largest epsilon that so many correct guesses refute; 0 when they refute none.

    Args:
        canaries, guesses, correct, delta: as in `p_value`.
        confidence: one minus the probability of a bound above the truth.
    """

    def excess(epsilon: float) -> float:
        chance = p_value(
            canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta
        )
        return chance - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    highest = 1.0
    while excess(highest) < 0 and highest < _EPSILON_MAX:
        highest *= 2
    if excess(highest) < 0:
        return highest
    return float(brentq(excess, 0.0, highest, xtol=1e-6))


def audit_guesses(
    scores: npt.NDArray[np.float64], is_included: npt.NDArray[np.bool_], *, delta: float
) -> OneRunResult:
    """Guess the highest scores as included and the lowest as excluded, and bound epsilon.

    Args:
        scores: [canaries], larger when the canary looks included.
        is_included: [canaries], the fair coins.
        delta: at which epsilon is bounded.
    """
    canaries = len(scores)
    each = max(1, int(canaries * GUESSED_FRACTION / 2)) if canaries > 1 else 0
    order = np.argsort(scores, kind="stable")
    correct = int(is_included[order[canaries - each :]].sum()) + int(
        (~is_included[order[:each]]).sum()
    )
    shown, possible = (
        epsilon_lower_bound(canaries=canaries, guesses=2 * each, correct=right, delta=delta)
        for right in (correct, 2 * each)
    )
    return OneRunResult(
        canaries=canaries,
        guesses=2 * each,
        correct=correct,
        delta=delta,
        epsilon_min=shown,
        epsilon_min_possible=possible,
    )
