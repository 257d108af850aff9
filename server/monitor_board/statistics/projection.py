"""Counts as they can have been: not negative, with the noisy total unchanged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def project_counts(values: npt.ArrayLike, *, cell_axes: int = 1) -> Float:
    """Return the nonnegative counts that are nearest and have the same total, at least 1.

    The same amount is taken from every cell and what falls below zero is cut off (Duchi et al.
    2008, "Efficient projections onto the l1-ball", figure 1). That makes empty cells too large and
    full ones too small. So statistics read the noisy counts themselves; this is for what must not
    be negative: variances, the distribution of scores, and curves on a page.

    Args:
        values: noisy counts [..., cells]; the last `cell_axes` axes are one tensor.
        cell_axes: number of axes over which the total is kept.
    """
    counts = np.asarray(values, dtype=np.float64)
    flat = counts.reshape(*counts.shape[: counts.ndim - cell_axes], -1)
    total = np.maximum(flat.sum(axis=-1, keepdims=True), 1.0)
    falling = -np.sort(-flat, axis=-1)
    excess = np.cumsum(falling, axis=-1) - total
    places = np.arange(1, flat.shape[-1] + 1)
    kept = (falling - excess / places > 0).sum(axis=-1, keepdims=True)
    taken = np.take_along_axis(excess, kept - 1, axis=-1) / kept
    return np.asarray(np.maximum(flat - taken, 0.0).reshape(counts.shape))
