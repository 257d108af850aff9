"""P-values that were looked at together, adjusted for the family-wise error: Holm's."""

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
