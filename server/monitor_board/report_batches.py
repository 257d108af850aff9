"""Stacked tensors as what is compared: shares or estimates, and which of them can be relied on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np

from server.monitor_board.plan_watches import GAPS
from server.monitor_board.report_panel import Stack
from server.monitor_board.signal_types import Metric
from server.monitor_board.statistics.estimates import Estimates
from server.monitor_board.statistics.group_intervals import group_intervals
from server.monitor_board.statistics.intervals import Intervals, enough_patients
from server.monitor_board.statistics.noisy_counts import SHOWN_COUNT_MIN
from server.monitor_board.statistics.noisy_shares import Floats, NoisyShares, shares_of
from server.monitor_board.statistics.performance_estimates import performance_intervals
from server.monitor_board.statistics.score_scale import ScoreScale
from server.monitor_board.statistics.sequential import Batch

SHARE_NOISE_MAX: Final = 0.15
"""Noise in the number of patients, as a share of it, up to which tests of shares are calibrated.

Measured at 0.19 on uneven shares: 2 false alarms in 100 instead of one."""

K = TypeVar("K")
_OUTCOME: Final = {
    Metric.AUROC: "auroc",
    Metric.CALIBRATION_SLOPE: "calibration_slope",
    Metric.CALIBRATION_INTERCEPT: "calibration_intercept",
}


def present_shares(stack: Stack) -> Batch[NoisyShares]:
    """Return a sentinel's bins among the patients who have a value."""
    return _shares(stack.counts[..., :-1], stack.sd, stack)


def all_shares(stack: Stack) -> Batch[NoisyShares]:
    """Return all cells, a sentinel's missing ones last."""
    return _shares(stack.counts, stack.sd, stack)


def score_shares(stack: Stack) -> Batch[NoisyShares]:
    """Return the score bins of [sites, bins], or of [sites, label, bins] for both labels."""
    if stack.counts.ndim == 2:
        return _shares(stack.counts, stack.sd, stack)
    return _shares(stack.counts.sum(axis=1), stack.sd * np.sqrt(2), stack)


def label_shares(stack: Stack) -> Batch[NoisyShares]:
    """Return the shares without and with the event of [sites, label, bins]."""
    sd = stack.sd * np.sqrt(stack.counts.shape[-1])
    counts = stack.counts.sum(axis=-1)
    batch = _shares(counts, sd, stack)
    is_usable = batch.is_usable & enough_patients(counts[:, 1], noise_sd=sd)
    return Batch(batch.items, is_usable, stack.is_pooled)


def outcome_estimates(stack: Stack, scale: ScoreScale) -> Mapping[Metric, Batch[Estimates]]:
    """Return AUROC and calibration of [sites, label, bins]."""

    def of_sites(counts: Floats, sd: Floats) -> Mapping[Metric, Intervals]:
        found = performance_intervals(counts, sd, scale)
        return {metric: found[name] for metric, name in _OUTCOME.items()}

    return _estimates(stack, tuple(_OUTCOME), of_sites)


def gap_estimates(stack: Stack, scale: ScoreScale) -> Mapping[tuple[Metric, int], Batch[Estimates]]:
    """Return the gaps of each level of [sites, level, label, bins] to all other patients."""
    levels = stack.counts.shape[1]
    keys = tuple((metric, level) for metric in GAPS for level in range(levels))

    def of_sites(counts: Floats, sd: Floats) -> Mapping[tuple[Metric, int], Intervals]:
        found = group_intervals(counts, sd[:, None], scale).gaps
        parts = {}
        for metric, level in keys:
            gap = found[GAPS[metric]][0]
            columns = (gap.value, gap.low, gap.high, gap.standard_error)
            parts[metric, level] = Intervals(*(column[:, level] for column in columns))
        return parts

    return _estimates(stack, keys, of_sites)


def _shares(counts: Floats, sd: Floats, stack: Stack) -> Batch[NoisyShares]:
    total = counts.sum(axis=-1)
    noise = sd * np.sqrt(counts.shape[-1])
    is_usable = stack.is_there & (total >= SHOWN_COUNT_MIN) & (noise <= SHARE_NOISE_MAX * total)
    return Batch(shares_of(counts, sd), is_usable, stack.is_pooled)


def _estimates(
    stack: Stack, keys: tuple[K, ...], of_sites: Callable[[Floats, Floats], Mapping[K, Intervals]]
) -> Mapping[K, Batch[Estimates]]:
    places = np.flatnonzero(stack.is_there)
    found = of_sites(stack.counts[places], stack.sd[places]) if len(places) else {}
    batches = {}
    for key in keys:
        value, variance = np.zeros(len(stack.sd)), np.ones(len(stack.sd))
        is_usable = np.zeros(len(stack.sd), dtype=np.bool_)
        if key in found:
            error = found[key].standard_error
            fits = np.isfinite(found[key].value) & np.isfinite(error) & (error > 0)
            good = places[fits]
            value[good], variance[good] = found[key].value[fits], error[fits] ** 2
            is_usable[good] = True
        batches[key] = Batch(Estimates(value, variance), is_usable, stack.is_pooled)
    return batches
