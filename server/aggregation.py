"""Streaming weighted mean of accepted updates: arrays in, arrays out, nothing else.

One running sum in float64 and one update at a time: memory does not grow with the number of sites.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from common.errors import RoundFailed
from common.protocol.arrays import Parameters

Array64 = npt.NDArray[np.float64]


class WeightedMean:
    """The mean of updates, each with a positive weight (McMahan et al. 2017, Algorithm 1).

    Args:
        shapes: name and shape of every array.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._sum = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._scratch = {name: np.empty(shape) for name, shape in shapes.items()}
        self.weight = 0.0
        self.count = 0

    def add(self, update: Parameters, *, weight: float) -> None:
        """Add one update; arrays must have the shapes given and be finite (update checks)."""
        self.add_scaled(update, weight=weight, factor=1.0)

    def add_scaled(self, update: Parameters, *, weight: float, factor: float) -> None:
        """Add one update times a factor, which changes nothing of its weight."""
        for name, scratch in self._scratch.items():
            np.multiply(update[name], weight * factor, out=scratch, dtype=np.float64)
            self._sum[name] += scratch
        self.weight += weight
        self.count += 1

    def mean(self) -> dict[str, Array64]:
        """Return the weighted mean in float64; raises `RoundFailed` when nothing was added."""
        if self.count == 0:
            raise nothing_to_aggregate()
        return {name: total / self.weight for name, total in self._sum.items()}


def nothing_to_aggregate() -> RoundFailed:
    """Return the error of a mean that was asked for before any update was added."""
    return RoundFailed(
        "there is no update to aggregate",
        expected="at least one accepted update",
        arrived="none",
        todo="look at the reasons in `cohortium-coordinator status`",
    )
