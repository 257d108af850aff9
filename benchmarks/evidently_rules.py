"""The default rules of Evidently's DataDriftPreset, written anew.

Evidently 0.7.23 does not import beside pandas 3, which this project has. The rules are those of its
documentation (https://docs.evidentlyai.com/metrics/customize_data_drift): a reference of at most
1,000 values is compared by Kolmogorov and Smirnov's test (numbers), chi-square of the current
counts against the scaled reference counts (categories) or a z-test of shares (two categories), each
at p < 0.05; a larger one by the Wasserstein distance in reference deviations (numbers) or the
Jensen-Shannon distance in nats (categories), each at 0.1. The data set drifts when half its columns
do. `benchmarks/monitoring_evidently.py` compares every verdict and score with Evidently's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare, ks_2samp, norm, wasserstein_distance

SMALL_REFERENCE_MAX = 1_000
P_VALUE_MAX = 0.05
DISTANCE_MIN = 0.1
COLUMN_SHARE_MIN = 0.5
DEVIATION_MIN = 0.001

Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnDrift:
    """One column's verdict.

    Args:
        method: as Evidently names it.
        score: a p-value or a distance.
    """

    method: str
    score: float
    is_drifted: bool


def column_drift(reference: Column, current: Column, *, categories: int) -> ColumnDrift:
    """Return the verdict on one column; missing values (NaN) do not count.

    Args:
        categories: how many a categorical column has, its values 0 to that; 0 for numbers.
    """
    reference, current = (item[~np.isnan(item)] for item in (reference, current))
    is_small = len(reference) <= SMALL_REFERENCE_MAX
    if categories == 0:
        return _of_numbers(reference, current, is_small=is_small)
    counts = [
        np.bincount(item.astype(np.int64), minlength=categories) for item in (reference, current)
    ]
    shares = [item / item.sum() for item in counts]
    if not is_small:
        distance = float(jensenshannon(shares[0], shares[1]))
        return _by_distance("Jensen-Shannon distance", distance)
    if categories == 2:
        pooled = (counts[0][1] + counts[1][1]) / (len(reference) + len(current))
        error = np.sqrt(pooled * (1 - pooled) * (1 / len(reference) + 1 / len(current)))
        p_value = float(2 * norm.sf(abs(shares[0][1] - shares[1][1]) / error))
        return ColumnDrift("Z-test p_value", p_value, p_value < P_VALUE_MAX)
    expected = counts[0] * (len(current) / len(reference))
    p_value = float(chisquare(counts[1], expected).pvalue)
    return ColumnDrift("chi-square p_value", p_value, p_value < P_VALUE_MAX)


def _of_numbers(reference: Column, current: Column, *, is_small: bool) -> ColumnDrift:
    if is_small:
        p_value = float(ks_2samp(reference, current).pvalue)
        return ColumnDrift("K-S p_value", p_value, p_value <= P_VALUE_MAX)
    deviation = max(float(np.std(reference)), DEVIATION_MIN)
    distance = float(wasserstein_distance(reference, current)) / deviation
    return _by_distance("Wasserstein distance (normed)", distance)


def _by_distance(method: str, distance: float) -> ColumnDrift:
    return ColumnDrift(method, distance, distance >= DISTANCE_MIN)
