"""How much of a drift is in force at a time; days as seconds since 1970."""

from __future__ import annotations

import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.populations.hospital import Drift

DAY_S: Final = 86_400


def drifted(drift: Drift, time_s: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return how much of a drift is in force at each time, 0 to 1."""
    days = (time_s - seconds(drift.begins)) / DAY_S
    if drift.over_days == 0:
        return (days >= 0).astype(np.float64)
    return np.clip(days / drift.over_days, 0, 1)


def seconds(day: datetime.date) -> int:
    """Return a day's beginning in seconds since 1970."""
    return (day - datetime.date(1970, 1, 1)).days * DAY_S
