"""Noisy [label, score bin] counts to AUROC, with an interval that includes the DP noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.protocol.messages import EvaluationCounts
from server.simplex import project_to_simplex

_DRAWS: Final = 1000
_Z_95: Final = 1.959964
INTERVAL_WIDTH_MAX: Final = 0.6
"""An interval wider than this says nothing about a model: "insufficient data" instead."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Auroc:
    """An AUROC with its 95 % interval.

    Args:
        value: in [0, 1].
        low, high: interval for sampling of patients and DP noise together.
    """

    value: float
    low: float
    high: float


def auroc(evaluations: Sequence[EvaluationCounts]) -> Auroc | None:
    """Return the AUROC of one site's counts or of several sites' summed, or None.

    Counts are projected, label by label, to the nearest non-negative ones with the same total;
    the interval is a parametric bootstrap that draws patients from the projected counts and adds
    fresh noise of the stated size. None means that the data cannot tell ("insufficient data").
    """
    if not evaluations:
        return None
    noisy = np.sum([np.asarray(item.counts, dtype=np.float64) for item in evaluations], axis=0)
    noise = float(np.sqrt(sum(item.noise_multiplier**2 for item in evaluations)))
    counts = _project(noisy)
    row_noise = noise * np.sqrt(noisy.shape[1])
    # A label whose total drowns in its own noise cannot be compared with the other.
    if min(noisy.sum(axis=1)) <= max(row_noise, 1.0):
        return None
    value = _auroc(counts)
    draws = _bootstrap(counts, noise)
    spread = _Z_95 * float(np.sqrt(np.mean((draws - value) ** 2)))
    if 2 * spread > INTERVAL_WIDTH_MAX:
        return None
    return Auroc(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread))


def _bootstrap(counts: Floats, noise: float) -> Floats:
    # Fixed seed: the same counts always give the same interval. Nothing here is private.
    rng = np.random.default_rng(20_261_121)
    draws = np.empty(_DRAWS)
    totals = np.maximum(np.round(counts.sum(axis=1)).astype(np.int64), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for index in range(_DRAWS):
        drawn = np.stack([rng.multinomial(totals[label], shares[label]) for label in (0, 1)])
        again = _project(drawn + rng.normal(0, noise, drawn.shape))
        is_empty = bool((again.sum(axis=1) <= 0).any())
        draws[index] = 0.5 if is_empty else _auroc(again)
    return draws


def _project(rows: Floats) -> Floats:
    """Return the nearest non-negative rows [..., n] with the same sums, or zeros for sums below."""
    return project_to_simplex(rows, np.maximum(rows.sum(axis=-1), 0.0))


def _auroc(counts: Floats) -> float:
    negative, positive = counts
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    wins = float((positive * (below + negative / 2)).sum())
    return wins / float(negative.sum() * positive.sum())
