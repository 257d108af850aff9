"""Bins of time without a value take the last one before them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def forward_filled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return [rows, bins, variables] in which a bin without a value has the last one before it."""
    places = np.where(np.isnan(values), 0, np.arange(values.shape[1])[None, :, None])
    return np.take_along_axis(values, np.maximum.accumulate(places, axis=1), axis=1)
