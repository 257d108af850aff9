"""Direct tests of Poisson sampling: each patient in each step by a coin of its own.

Counts become standard normals by the randomised probability integral transform, which is exact for
any binomial: u = P[X < x] + U P[X = x] is uniform when U is. Their mean and their sum of squares
are then tested exactly. A batch of fixed size, or a shuffled pass, has too little spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, binomtest, chi2, norm

from simulations.audit.evidence import StudyEvidence
from simulations.audit.report import FALSE_ALARM, Check

_Scores: TypeAlias = dict[float, list[npt.NDArray[np.float64]]]
"""Standard normal scores by sampling probability."""


def check_batch_sizes(studies: Sequence[StudyEvidence], rng: np.random.Generator) -> Check:
    """Check that batch sizes are binomial: they vary as coins do, and their mean is right."""
    scores: _Scores = {}
    for study in studies:
        probability = study.planned[0].sampling_probability
        found = _normal_scores(study.batch_sizes, study.cohort, probability, rng)
        scores.setdefault(probability, []).append(found)
    return _judge(
        "sampling-batch-sizes",
        scores,
        what="batch sizes",
        meaning="batches of fixed or other size: the sampling that is accounted did not happen",
    )


def check_patient_counts(studies: Sequence[StudyEvidence], rng: np.random.Generator) -> Check:
    """Check how often each canary was drawn, which is binomial over the steps of its study."""
    scores: _Scores = {}
    most = 0
    for study in studies:
        if study.inclusions.size:
            most = max(most, int(study.inclusions.max()))
            probability, steps = study.planned[0].sampling_probability, len(study.inclusions)
            found = _normal_scores(study.inclusions.sum(0), steps, probability, rng)
            scores.setdefault(probability, []).append(found)
    check = _judge(
        "sampling-patient-counts",
        scores,
        what="patients' counts",
        meaning="patients drawn in turn or unevenly: not the sampling that is accounted",
    )
    if most <= 1:
        return check
    return Check(check.name, False, "a patient twice in one step", "once", check.meaning)


def check_pairs(studies: Sequence[StudyEvidence]) -> Check:
    """Check that pairs of steps, and pairs of patients, agree as independent coins do.

    Disjoint pairs are independent of each other, so their agreements are binomial exactly.
    """
    chances, seen = [], 0
    for axis in (0, 1):  # consecutive steps of one patient; neighbouring patients of one step
        agreed: dict[float, list[int]] = {}
        for study in studies:
            drawn = study.inclusions > 0
            pairs = drawn.shape[axis] // 2
            even, odd = (np.take(drawn, np.arange(pairs) * 2 + k, axis) for k in (0, 1))
            same = agreed.setdefault(study.planned[0].sampling_probability, [0, 0])
            same[0] += int((even == odd).sum())
            same[1] += even.size
        for probability, (count, trials) in agreed.items():
            if trials:
                chance = probability**2 + (1 - probability) ** 2
                chances.append(float(binomtest(count, trials, min(1.0, chance)).pvalue))
                seen += trials
    level = FALSE_ALARM / max(1, len(chances))
    least = min(chances, default=1.0)
    return Check(
        "sampling-pairs",
        least >= level,
        f"p-value {least:.2g} over {seen} pairs",
        f"at least {level:.2g}",
        "draws that depend on each other, as in a shuffled pass through the patients",
    )


def _normal_scores(
    counts: npt.NDArray[np.int64], trials: int, probability: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    below = binom.cdf(counts - 1, trials, probability)
    at = binom.pmf(counts, trials, probability)
    uniform = np.clip(below + rng.random(len(counts)) * at, 1e-16, 1 - 1e-16)
    return np.asarray(norm.ppf(uniform), dtype=np.float64)


def _judge(name: str, scores: _Scores, *, what: str, meaning: str) -> Check:
    """Test each sampling probability's scores by themselves: a few sparse ones drown in many."""
    level = FALSE_ALARM / 4 / max(1, len(scores))
    mean_max = float(norm.isf(level))
    is_passed, measured, allowed = True, [], [f"mean within {mean_max:.2f}"]
    for probability, parts in scores.items():
        values = np.concatenate(parts)
        count, squares = len(values), float(np.square(values).sum())
        mean = float(values.mean() * np.sqrt(count))
        low, high = chi2.ppf(level, count), chi2.isf(level, count)
        is_passed &= bool(low <= squares <= high and abs(mean) <= mean_max)
        measured.append(
            f"{count} {what} at {probability:g}: spread {np.sqrt(squares / count):.3f}, "
            f"mean {mean:+.2f}"
        )
        allowed.append(f"spread {np.sqrt(low / count):.3f} to {np.sqrt(high / count):.3f}")
    return Check(name, is_passed, "; ".join(measured) or "none", ", ".join(allowed), meaning)
