"""The mean of a figure over seeds, and its Student's t interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import t as student_t

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; its ends are not a number where there is only one."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half_width(self) -> float:
        """How far each end is from the mean."""
        return (self.high - self.low) / 2

    def columns(self, name: str) -> dict[str, Any]:
        """Return it as columns `name`, `name_low` and `name_high`."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


def interval(values: Iterable[float | None]) -> Interval:
    """Return mean and Student's t interval of the values that are there."""
    found = np.array([item for item in values if item is not None and not math.isnan(item)])
    if len(found) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(found.mean())
    if len(found) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(found) - 1)) * error
    return Interval(mean, mean - half, mean + half, len(found))
