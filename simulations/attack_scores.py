"""From shadow models' scores to how well membership is told, and what (epsilon, delta) allows.

The likelihood-ratio attack (LiRA; Carlini et al. 2022, arXiv:2112.03570): shadow models, each with
and without a patient by a coin, show how the model's confidence in the patient's own outcome is
distributed when he was in and when he was out. A test model's confidence is then the likelier under
one of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Array64 = npt.NDArray[np.float64]
ArrayBool = npt.NDArray[np.bool_]

CONFIDENCE: Final = 0.95
_DEVIATION_MIN: Final = 1e-6


@dataclass(frozen=True)
class RateAt:
    """How many members are found at a false positive rate.

    Args:
        false_positive_rate: asked for; the threshold is the lowest that keeps it here.
        false_positives, outs: of patients who were out.
        true_positives, ins: of patients who were in.
        low, high: Clopper-Pearson interval of the true positive rate; guesses on one model are not
            independent, which it takes them to be.
        bound: largest true positive rate that the promise allows at the upper end of the same
            interval of the measured false positive rate; 1 without a promise.
    """

    false_positive_rate: float
    false_positives: int
    outs: int
    true_positives: int
    ins: int
    low: float
    high: float
    bound: float

    @property
    def true_positive_rate(self) -> float:
        """Share of members found."""
        return self.true_positives / self.ins


def likelihood_ratios(shadow: Array64, is_in: ArrayBool, tested: Array64) -> Array64:
    """Return the log likelihood ratios of membership, in against out.

    Normal distributions with a mean for each target and state and one deviation for each state, as
    Carlini et al. (section V-C) advise for few shadow models.

    Args:
        shadow: [shadow models, targets], logit of the confidence in the true outcome.
        is_in: [shadow models, targets], whether the target was among the patients who trained.
        tested: [test models, targets].
    """
    ratios = np.zeros_like(tested)
    for state, sign in ((True, 1.0), (False, -1.0)):
        chosen = is_in == state
        counts = np.maximum(chosen.sum(axis=0), 1)
        means = np.where(chosen, shadow, 0.0).sum(axis=0) / counts
        gaps = np.where(chosen, shadow - means, 0.0)
        freedom = max(1, int(chosen.sum()) - shadow.shape[1])
        deviation = max(math.sqrt(float((gaps**2).sum()) / freedom), _DEVIATION_MIN)
        ratios += sign * (-0.5 * ((tested - means) / deviation) ** 2 - math.log(deviation))
    return ratios


def rate_at(
    scores: Array64, is_in: ArrayBool, false_positive_rate: float, *, epsilon: float, delta: float
) -> RateAt:
    """Return how many members are found where at most so many non-members are taken for one.

    Args:
        scores: larger is more likely a member.
        is_in: the truth.
        false_positive_rate: 0 to 1.
        epsilon, delta: the promise; infinity is none.
    """
    outside = np.sort(scores[~is_in])[::-1]
    allowed = int(false_positive_rate * len(outside))
    threshold = outside[allowed] if allowed < len(outside) else -np.inf
    taken = scores > threshold
    false_positives, true_positives = int(taken[~is_in].sum()), int(taken[is_in].sum())
    ins, outs = int(is_in.sum()), len(outside)
    low, high = clopper_pearson(true_positives, ins)
    worst = clopper_pearson(false_positives, outs)[1]
    return RateAt(
        false_positive_rate=false_positive_rate,
        false_positives=false_positives,
        outs=outs,
        true_positives=true_positives,
        ins=ins,
        low=low,
        high=high,
        bound=most_true_positives(worst, epsilon=epsilon, delta=delta),
    )


def most_true_positives(false_positive_rate: float, *, epsilon: float, delta: float) -> float:
    """Return the largest true positive rate under (epsilon, delta)-DP at a false positive rate.

    The smaller of e^epsilon FPR + delta and 1 - e^-epsilon (1 - delta - FPR) (Kairouz, Oh and
    Viswanath 2015, Theorem 2.1).
    """
    if math.isinf(epsilon):
        return 1.0
    first = math.exp(epsilon) * false_positive_rate + delta
    second = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return max(0.0, min(1.0, first, second))


def clopper_pearson(found: int, count: int) -> tuple[float, float]:
    """Return the exact interval of a binomial share (Clopper and Pearson 1934).

    Args:
        found: of `count`, which is positive.
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if found == 0 else float(beta.ppf(tail, found, count - found + 1))
    high = 1.0 if found == count else float(beta.ppf(1 - tail, found + 1, count - found))
    return low, high
