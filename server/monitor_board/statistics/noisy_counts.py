"""The counts that a site reports, and the noise in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Smaller counts are not shown (CMS cell size policy); patients behind a number must be as many.
SHOWN_COUNT_MIN = 11


@dataclass(frozen=True)
class NoisyCounts:
    """One tensor of a report.

    Args:
        values: counts in the tensor's own shape; noise may make them negative.
        sd: standard deviation of the independent noise of every cell; 0 when the counts are exact.
    """

    values: npt.NDArray[np.int64 | np.float64]
    sd: float


def shown_count(count: float) -> int | None:
    """Return a noisy count as it may be shown: rounded, and None below `SHOWN_COUNT_MIN`.

    The rule reads the noisy count alone, so it tells nothing that the count does not tell.
    """
    return round(count) if count >= SHOWN_COUNT_MIN else None
