"""Direct tests of the noise: its deviation, its shape, and that no two steps share it.

The auditor knows the sum before noise, so what is left after subtracting it is the noise itself, in
units of the claimed standard deviation. Every bound is exact for Gaussian noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, chi2, kstest, norm

from simulations.audit.evidence import StudyEvidence
from simulations.audit.report import FALSE_ALARM, Check


def check_deviation(studies: Sequence[StudyEvidence]) -> Check:
    """Check the standard deviation of the noise, of all parameters and in each tensor.

    Source: the sum of squares of n standard normals is chi-squared with n degrees of freedom.
    """
    totals: dict[str, tuple[int, float]] = {}
    for study in studies:
        for block in study.blocks:
            count, squares = totals.get(block.name, (0, 0.0))
            totals[block.name] = (count + block.count, squares + block.squares)
    everything = (
        sum(count for count, _ in totals.values()),
        sum(squares for _, squares in totals.values()),
    )
    tested = {"all": everything, **totals} if len(totals) > 1 else {"all": everything}
    level = FALSE_ALARM / len(tested) / 2
    wrong, worst = [], ""
    for name, (count, squares) in tested.items():
        low, high = chi2.ppf(level, count), chi2.isf(level, count)
        if not low <= squares <= high:
            wrong.append(name)
        if name == "all" or (name in wrong and len(wrong) == 1):
            worst = (
                f"{np.sqrt(squares / max(count, 1)):.5f} of the claimed deviation in {name} "
                f"({count} values, bounds {np.sqrt(low / max(count, 1)):.5f} to "
                f"{np.sqrt(high / max(count, 1)):.5f})"
            )
    return Check(
        "noise-deviation",
        not wrong and everything[0] > 0,
        worst,
        "noise multiplier times clipping norm, in every parameter tensor",
        "less noise than the ledger charges for: the true epsilon is larger than stated",
    )


def check_shape(studies: Sequence[StudyEvidence]) -> Check:
    """Check mean and distribution function of the noise (Kolmogorov and Smirnov)."""
    values = np.concatenate([study.noise.ravel() for study in studies])
    if len(values) < 2:
        return _shape(is_passed=False, measured="no noise was seen")
    z = abs(float(values.mean())) * np.sqrt(len(values))
    chance = min(2 * float(norm.sf(z)), float(kstest(values, "norm").pvalue))
    return _shape(
        is_passed=chance >= FALSE_ALARM / 2,
        measured=f"p-value {chance:.2g} for a standard normal over {len(values)} values",
    )


def check_independence(studies: Sequence[StudyEvidence]) -> Check:
    """Check that the noise of no two steps, and of no two studies, is correlated.

    Source: the squared cosine of two independent Gaussian vectors of n coordinates is Beta(1/2,
    (n - 1)/2); each pair is tested at the level divided by the number of pairs.
    """
    least, where, pairs = 1.0, "", 0
    for chance, count, place in _closest_pairs(studies):
        pairs += count
        if chance < least:
            least, where = chance, place
    bound = FALSE_ALARM / max(1, pairs)
    return Check(
        "noise-independence",
        least >= bound,
        f"p-value {least:.2g} of the most alike of {pairs} pairs{where}",
        f"at least {bound:.2g}",
        "noise that comes twice: the difference of two releases holds no noise",
    )


def _closest_pairs(studies: Sequence[StudyEvidence]) -> Iterator[tuple[float, int, str]]:
    for study in studies:
        steps, coordinates = study.noise.shape
        if steps < 2 or coordinates < 2:
            continue
        cosine = np.triu(_cosines(study.noise), k=1)
        first, second = np.unravel_index(int(np.abs(cosine).argmax()), cosine.shape)
        place = f" (rounds {study.rounds[first]} and {study.rounds[second]} of one study)"
        yield (
            _chance(float(cosine[first, second]), coordinates),
            steps * (steps - 1) // 2,
            place,
        )
    for one, other in combinations(studies, 2):
        values = min(one.noise.size, other.noise.size)
        if values > 1 and one.noise.shape[1] == other.noise.shape[1]:
            pair = np.stack([one.noise.ravel()[:values], other.noise.ravel()[:values]])
            yield (
                _chance(
                    float(_cosines(pair)[0, 1]),
                    values,
                ),
                1,
                " (two studies)",
            )


def _cosines(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return np.asarray(unit @ unit.T)


def _chance(cosine: float, coordinates: int) -> float:
    return float(beta.sf(min(1.0, cosine**2), 0.5, (coordinates - 1) / 2))


def _shape(*, is_passed: bool, measured: str) -> Check:
    return Check(
        "noise-shape",
        is_passed,
        measured,
        f"at least {FALSE_ALARM / 2:.2g}",
        "noise that is not the Gaussian noise that is accounted",
    )
