"""P-values that were looked at together: Holm's family-wise, Benjamini and Hochberg's rate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return p-values adjusted along the last axis (Holm 1979); nan stays nan and does not count.

    Rejecting where the adjusted one is at most alpha keeps the chance of any false rejection there.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.isfinite(p).sum(axis=-1, keepdims=True)
    order = np.argsort(p, axis=-1)  # nan comes last
    factors = np.maximum(tested - np.arange(p.shape[-1]), 1)
    rising = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(rising, 1.0), axis=-1)
    return adjusted


def benjamini_hochberg(
    p_values: npt.NDArray[np.float64], *, false_share_max: float
) -> npt.NDArray[np.bool_]:
    """Return which of [tests] stand at a false discovery rate.

    Benjamini and Hochberg 1995: the largest k with p_(k) <= q k / n. NaN is no test.
    """
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    bounds = false_share_max * np.arange(1, len(order) + 1) / max(len(order), 1)
    passing = np.flatnonzero(p_values[order] <= bounds)
    stands = np.zeros(len(p_values), dtype=np.bool_)
    if len(passing):
        stands[order[: passing[-1] + 1]] = True
    return stands
