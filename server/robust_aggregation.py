"""Aggregation that tolerates dishonest sites: what stands for the mean update, by the plan.

A weighted mean streams: one running sum. An order statistic or a distance needs all updates of the
round at once, so memory grows by one update (float32) with each accepted site. Updates are put in
the order of their SHA-256 before they are combined: the model does not depend on who came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from common.protocol.arrays import Parameters, l2_norm
from common.protocol.messages import TaskKind
from common.study.aggregation import (
    CoordinateMedian,
    MultiKrum,
    NormBound,
    TrimmedMean,
    WeightedMeanOfUpdates,
)
from common.study.plan import StudyPlan
from server.aggregation import WeightedMean, nothing_to_aggregate

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Shapes = Mapping[str, tuple[int, ...]]
BLOCK_NUMBERS: Final = 1 << 20
"""Numbers of all sites together that are in float64 at once."""


class Aggregation(Protocol):
    """What takes accepted updates one by one and gives what stands for their mean."""

    @property
    def count(self) -> int:
        """Updates added."""
        ...

    def add(self, update: Parameters, *, weight: float) -> None:
        """Add one update; arrays must have the shapes given and be finite (update checks)."""
        ...

    def mean(self) -> dict[str, Array64]:
        """Return the aggregate in float64; raises `RoundFailed` when nothing was added."""
        ...


def aggregation_of(plan: StudyPlan, kind: TaskKind, shapes: Shapes) -> Aggregation:
    """Return a round's aggregation.

    Sums for scaling, counts and evaluations are always summed: the update checks already bound each
    site's share of them by its declared patients (U10, U15, U16), and a sum over patients must keep
    the small sites' patients.

    Args:
        plan: chooses for training rounds.
        kind: of the round.
        shapes: name and shape of every array of an update.
    """
    chosen = plan.training.aggregation
    if kind is not TaskKind.TRAIN or isinstance(chosen, WeightedMeanOfUpdates):
        return WeightedMean(shapes)
    match chosen:
        case NormBound(norm_max="median"):
            return MedianNormBoundedMean(shapes)
        case NormBound(norm_max=float(most)):
            return NormBoundedMean(shapes, norm_max=most)
        case TrimmedMean():
            return TrimmedMeanOfUpdates(shapes, trimmed=chosen.dishonest_sites)
        case CoordinateMedian():
            return MedianOfUpdates(shapes)
        case MultiKrum():
            return KrumMean(
                shapes, dishonest_sites=chosen.dishonest_sites, selected=chosen.selected
            )
        case NormBound():
            raise AssertionError("the plan's type allows no other bound")
        case _:
            assert_never(chosen)


class NormBoundedMean(WeightedMean):
    """The weighted mean of updates scaled down to a public L2 norm (Sun et al. 2019, section 5).

    Args:
        shapes: name and shape of every array.
        norm_max: longer updates are scaled down to it.
    """

    def __init__(self, shapes: Shapes, *, norm_max: float) -> None:
        super().__init__(shapes)
        self._norm_max = norm_max

    def add(self, update: Parameters, *, weight: float) -> None:
        """Add one update, scaled down where it is longer than the bound."""
        self.add_scaled(update, weight=weight, factor=_factor(l2_norm(update), self._norm_max))


class _KeptUpdates:
    """All updates of a round, flat, as rows of one matrix.

    Args:
        shapes: name and shape of every array.
    """

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = dict(shapes)
        self._kept: list[tuple[bytes, float, Array32]] = []

    @property
    def count(self) -> int:
        """Updates added."""
        return len(self._kept)

    def add(self, update: Parameters, *, weight: float) -> None:
        """Keep one update."""
        row = np.concatenate([np.ravel(update[name]) for name in self._shapes]).astype(np.float32)
        digest = hashlib.sha256(row.tobytes()).digest()
        self._kept.append((digest, weight, row))

    def mean(self) -> dict[str, Array64]:
        """Return the aggregate in float64; raises `RoundFailed` when nothing was added."""
        if not self._kept:
            raise nothing_to_aggregate()
        self._kept.sort(key=lambda item: item[:2])
        flat = self._combine(
            [row for _, _, row in self._kept], np.array([weight for _, weight, _ in self._kept])
        )
        arrays: dict[str, Array64] = {}
        start = 0
        for name, shape in self._shapes.items():
            length = int(np.prod(shape, dtype=np.int64))
            arrays[name] = flat[start : start + length].reshape(shape)
            start += length
        return arrays

    def _combine(self, rows: list[Array32], weights: Array64) -> Array64:
        raise NotImplementedError


class MedianNormBoundedMean(_KeptUpdates):
    """The weighted mean of updates scaled down to the median of the round's L2 norms."""

    def _combine(self, rows: list[Array32], weights: Array64) -> Array64:
        norms = np.array([float(np.linalg.norm(row.astype(np.float64))) for row in rows])
        most = float(np.median(norms))
        shares = weights / weights.sum()
        total = np.zeros(len(rows[0]))
        for row, norm, share in zip(rows, norms.tolist(), shares.tolist(), strict=True):
            total += row.astype(np.float64) * (_factor(norm, most) * share)
        return total


class TrimmedMeanOfUpdates(_KeptUpdates):
    """For each parameter, the mean without its lowest and highest values (Yin et al. 2018).

    Args:
        shapes: name and shape of every array.
        trimmed: values left out at either end; fewer than half of the updates.
    """

    def __init__(self, shapes: Shapes, *, trimmed: int) -> None:
        super().__init__(shapes)
        self._trimmed = trimmed

    def _combine(self, rows: list[Array32], weights: Array64) -> Array64:
        # The quorum makes it fewer than half (P47); a round of less never gets here.
        trimmed = min(self._trimmed, (len(rows) - 1) // 2)
        parts = [
            np.sort(block, axis=0)[trimmed : len(rows) - trimmed].mean(axis=0, dtype=np.float64)
            for block in _blocks(rows)
        ]
        return np.concatenate(parts)


class MedianOfUpdates(_KeptUpdates):
    """For each parameter, the median over sites (Yin et al. 2018); of two middles their mean."""

    def _combine(self, rows: list[Array32], weights: Array64) -> Array64:
        return np.concatenate([np.median(block, axis=0) for block in _blocks(rows)])


class KrumMean(_KeptUpdates):
    """The mean of the updates closest to their neighbours (Blanchard et al. 2017, section 4).

    Args:
        shapes: name and shape of every array.
        dishonest_sites: f; distances to the n - f - 2 nearest others count.
        selected: m updates with the lowest scores are averaged, all alike; 1 is Krum itself.
    """

    def __init__(self, shapes: Shapes, *, dishonest_sites: int, selected: int) -> None:
        super().__init__(shapes)
        self._dishonest = dishonest_sites
        self._selected = selected

    def _combine(self, rows: list[Array32], weights: Array64) -> Array64:
        scores = krum_scores(squared_distances(rows), dishonest_sites=self._dishonest)
        chosen = np.argsort(scores, kind="stable")[: self._selected]
        total = np.zeros(len(rows[0]))
        for place in sorted(chosen.tolist()):
            total += rows[place]
        return total / len(chosen)


def krum_scores(distances: Array64, *, dishonest_sites: int) -> Array64:
    """Return each update's sum of squared distances to its n - f - 2 nearest others.

    Args:
        distances: [n, n], squared.
        dishonest_sites: f; with n - f - 2 below one the nearest other alone counts.
    """
    nearest = max(1, len(distances) - dishonest_sites - 2)
    # The first of each sorted row is the update's distance to itself.
    scores: Array64 = np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(axis=1)
    return scores


def squared_distances(rows: list[Array32]) -> Array64:
    """Return the squared L2 distances [n, n] of n updates, in float64.

    Differences are squared, not products subtracted: updates that lie close together keep all their
    digits.
    """
    distances = np.zeros((len(rows), len(rows)))
    for block in _blocks(rows):
        for place in range(len(rows) - 1):
            gaps = block[place + 1 :] - block[place]
            distances[place, place + 1 :] += np.einsum("ij,ij->i", gaps, gaps)
    return distances + distances.T


def _blocks(rows: list[Array32]) -> Iterator[Array64]:
    """Yield the columns of all rows in float64, so many at a time that memory stays bounded."""
    width = max(1, BLOCK_NUMBERS // len(rows))
    for start in range(0, len(rows[0]), width):
        yield np.stack([row[start : start + width] for row in rows]).astype(np.float64)


def _factor(norm: float, most: float) -> float:
    return 1.0 if norm <= most else most / norm
