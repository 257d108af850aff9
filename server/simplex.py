"""Counts that noise made negative, put back where counts can be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def project_to_simplex(rows: Floats, totals: Floats) -> Floats:
    """Return the nearest non-negative rows [..., n] that sum to totals [...], none below 0.

    Euclidean projection onto a simplex: Duchi et al. 2008, Figure 1.
    """
    falling = -np.sort(-rows, axis=-1)
    places = np.arange(1, rows.shape[-1] + 1)
    shifts = (np.cumsum(falling, axis=-1) - totals[..., None]) / places
    # With a total of 0 none is above its shift: the first shift then makes every count 0.
    last = np.maximum((falling > shifts).sum(axis=-1, keepdims=True) - 1, 0)
    projected: Floats = np.maximum(rows - np.take_along_axis(shifts, last, axis=-1), 0.0)
    return projected
