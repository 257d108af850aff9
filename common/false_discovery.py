"""Which of many p-values stand, when they were looked at together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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
