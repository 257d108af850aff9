"""The counts that a site reports, and the noise in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class NoisyCounts:
    """One tensor of a report.

    Args:
        values: counts in the tensor's own shape; noise may make them negative.
        sd: standard deviation of the independent noise of every cell; 0 when the counts are exact.
    """

    values: npt.NDArray[np.int64 | np.float64]
    sd: float
