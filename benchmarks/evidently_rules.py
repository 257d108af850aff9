"""Evidently's documented default rules for data drift, written anew as a rival to measure against.

Evidently 0.7.23 itself does not import beside pandas 3, which this project has. The rules are those
of its documentation, "Data drift algorithm"
(https://docs-old.evidentlyai.com/reference/data-drift-algorithm), with its formulas: a reference of
at most 1,000 rows is compared by Kolmogorov and Smirnov's test (numbers), chi-square of the current
counts against the scaled reference counts (categories) or a z-test of shares (two categories), each
at p < 0.05; a larger one by the Wasserstein distance in reference deviations (numbers) or the
Jensen-Shannon distance (categories), each at 0.1. The data set drifts when half its columns do.
It reads rows without privacy: where it does better than noisy counts, that is part of why.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare, ks_2samp, norm, wasserstein_distance

SMALL_REFERENCE_MAX = 1_000
P_VALUE_MAX = 0.05
DISTANCE_MIN = 0.1
COLUMN_SHARE_MIN = 0.5
DEVIATION_MIN = 0.001

Column = npt.NDArray[np.float64] | npt.NDArray[np.int64]


def is_column_drifted(reference: Column, current: Column, *, categories: int) -> bool:
    """Return whether one column drifted.

    Args:
        categories: how many a categorical column has, its values 0 to that; 0 for numbers.
    """
    if categories == 0:
        return _is_number_drifted(reference, current)
    counts = [
        np.bincount(item.astype(np.int64), minlength=categories) for item in (reference, current)
    ]
    shares = [item / item.sum() for item in counts]
    if len(reference) > SMALL_REFERENCE_MAX:
        return float(jensenshannon(shares[0], shares[1], base=2)) >= DISTANCE_MIN
    if categories == 2:
        pooled = (counts[0][1] + counts[1][1]) / (len(reference) + len(current))
        error = np.sqrt(pooled * (1 - pooled) * (1 / len(reference) + 1 / len(current)))
        return bool(2 * norm.sf(abs(shares[0][1] - shares[1][1]) / error) < P_VALUE_MAX)
    expected = counts[0] * (len(current) / len(reference))
    return bool(chisquare(counts[1], expected).pvalue < P_VALUE_MAX)


def _is_number_drifted(reference: Column, current: Column) -> bool:
    if len(reference) <= SMALL_REFERENCE_MAX:
        return bool(ks_2samp(reference, current).pvalue < P_VALUE_MAX)
    deviation = max(float(np.std(reference)), DEVIATION_MIN)
    return bool(wasserstein_distance(reference, current) / deviation >= DISTANCE_MIN)
