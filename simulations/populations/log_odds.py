"""From log-odds to probabilities, without overflow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def probability(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-log_odds))."""
    return np.asarray(np.exp(-np.logaddexp(0, -log_odds)), dtype=np.float64)
