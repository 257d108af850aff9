"""The bins of the predicted probability, and the mean prediction of the patients in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtri

from common.errors import InternalError
from server.monitor_board.statistics.projection import Float, project_counts

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_FLAT = 1e-9
# With more of the patients in the first or the last bin, their mean prediction is a guess.
END_SHARE_MAX = 0.8


@dataclass(frozen=True)
class ScoreScale:
    """Where a plan cuts the predicted probability.

    Args:
        edges: inner edges, rising; a score at an edge belongs to the bin above it.
        threshold: one of the edges; from it on the model alerts.
    """

    edges: tuple[float, ...]
    threshold: float

    def __post_init__(self) -> None:
        if self.threshold not in self.edges:
            raise InternalError(
                "a score scale was refused",
                expected="a threshold that is one of the edges, as plan rules ask",
                arrived="a threshold between the edges",
                todo="report this; the plan's rules should have refused it",
            )

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1

    @property
    def alert_bin(self) -> int:
        """Place of the lowest bin in which the model alerts."""
        return self.edges.index(self.threshold) + 1


def bin_means(totals: npt.ArrayLike, edges: tuple[float, ...]) -> Float:
    """Return the mean predicted probability within each bin [..., bins], estimated from counts.

    A report holds no sums of scores. The middle of a bin is far off where scores are skewed: with
    ten equal bins and an outcome of 5 % it makes observed / expected 36 % too low. So the logits
    are taken to be normal within each bin, with the mean and deviation that the shares below its
    two edges imply: exact for normal logits, and near for others, because each bin has its own.
    Below the first and above the last edge a line through all edges goes on; edges count by the
    squared density there, so that noise in nearly empty bins says little, and half for each step.

    Args:
        totals: noisy counts of patients [..., bins].
    """
    counts = project_counts(totals)
    patients = counts.sum(axis=-1, keepdims=True)
    at = logit(np.asarray(edges))
    below = np.cumsum(counts, axis=-1)[..., :-1] / patients
    below = np.clip(below, 0.5 / patients, 1 - 0.5 / patients)
    normal = ndtri(below)
    low_tail, high_tail = _tail_slope(normal, at), _tail_slope(normal[..., ::-1], at[::-1])
    steps = np.diff(normal, axis=-1)
    is_flat = steps <= _FLAT
    inner = np.where(is_flat, 0.0, np.diff(at) / np.where(is_flat, 1.0, steps))
    slopes = np.concatenate([low_tail, inner, high_tail], axis=-1)
    zero, one = np.zeros_like(patients), np.ones_like(patients)
    low, high = np.concatenate([zero, below], axis=-1), np.concatenate([below, one], axis=-1)
    shares = low[..., None] + (high - low)[..., None] * _NODES
    anchors = np.concatenate([normal[..., :1], normal], axis=-1)
    logits = np.concatenate([at[:1], at])[:, None] + slopes[..., None] * (
        ndtri(shares) - anchors[..., None]
    )
    means = (expit(logits) * _WEIGHTS).sum(axis=-1)
    middles = expit(np.concatenate([at[:1] - 1, (at[1:] + at[:-1]) / 2, at[-1:] + 1]))
    empty = np.concatenate([zero > 0, is_flat, zero > 0], axis=-1)
    bounds = np.concatenate([[0.0], np.asarray(edges), [1.0]])
    found = np.where(empty, middles, means)
    return np.asarray(np.clip(found, bounds[:-1] + _FLAT, bounds[1:] - _FLAT))


def means_are_known(totals: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether the bins at both ends are small enough for `bin_means` [...]."""
    counts = project_counts(totals)
    ends = np.maximum(counts[..., 0], counts[..., -1])
    return np.asarray(ends <= END_SHARE_MAX * counts.sum(axis=-1))


def bin_mean_slopes(totals: Float, edges: tuple[float, ...]) -> Float:
    """Return how each bin's mean moves with one patient more in each bin: [..., bin, counted]."""
    one_more = np.eye(totals.shape[-1])
    around = totals[..., None, :]
    moved = (bin_means(around + one_more, edges) - bin_means(around - one_more, edges)) / 2
    return np.asarray(np.swapaxes(moved, -1, -2))


def _tail_slope(normal: Float, at: Float) -> Float:
    """Return the deviation of the logits beyond the first of these edges."""
    if at.size == 1:  # one edge gives no deviation: that of a standard logit is as good as any
        return np.ones_like(normal)
    weight = np.exp(-(normal**2)) * 0.5 ** np.arange(at.size)
    weight = weight / weight.sum(axis=-1, keepdims=True)
    x = normal - (weight * normal).sum(axis=-1, keepdims=True)
    y = at - (weight * at).sum(axis=-1, keepdims=True)
    spread = (weight * x * x).sum(axis=-1, keepdims=True)
    slope = (weight * x * y).sum(axis=-1, keepdims=True) / np.maximum(spread, _FLAT)
    return np.asarray(np.where(spread > _FLAT, slope, 1.0))
