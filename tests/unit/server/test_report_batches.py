"""Stacked tensors as estimates: calibrated where the tests need it, and silent on too little."""

from __future__ import annotations

import numpy as np

from server.monitor_board.report_batches import (
    SHARE_NOISE_MAX,
    gap_estimates,
    outcome_estimates,
    present_shares,
)
from server.monitor_board.report_panel import Stack
from server.monitor_board.signal_types import Metric
from server.monitor_board.statistics.estimates import outside_p_value
from server.monitor_board.statistics.score_scale import ScoreScale

RUNS = 4_000
TOLERANCE = 0.05


def test_a_gap_as_large_as_the_tolerance_is_beyond_it_once_in_a_hundred() -> None:
    # Sensitivity 0.60 and 0.65, false positive rate 0.25 and 0.30.
    events = np.array([[0.15, 0.25, 0.4, 0.2], [0.15, 0.20, 0.4, 0.25]])
    others = np.array([[0.45, 0.3, 0.2, 0.05], [0.40, 0.3, 0.2, 0.1]])
    shares = np.stack([0.85 * others, 0.15 * events], axis=1) / 2
    rng = np.random.default_rng(0)
    for patients in (10_000, 3_000):
        counts = rng.multinomial(patients, shares.ravel(), RUNS).reshape(RUNS, 2, 2, 4)
        noisy = counts + rng.normal(0, 4.0, counts.shape)
        stack = Stack(noisy, np.full(RUNS, 4.0), np.ones(RUNS, dtype=np.bool_))
        found = gap_estimates(stack, ScoreScale((0.1, 0.2, 0.5), 0.2))
        for metric in (Metric.SENSITIVITY_GAP, Metric.FALSE_POSITIVE_GAP):
            batch = found[metric, 0]
            estimates = batch.items.at(np.flatnonzero(batch.is_usable))
            p_values = outside_p_value(estimates, -TOLERANCE, TOLERANCE)
            assert 0.005 < (p_values <= 0.01).mean() < 0.016


def test_shares_under_too_much_noise_are_not_used() -> None:
    counts = np.array([[100.0] * 5, [100.0] * 5, [2.0] * 5])
    limit = SHARE_NOISE_MAX * 400 / 2  # four bins are present, their total's noise is twice one's
    stack = Stack(counts, np.array([limit, limit * 1.01, 0.1]), np.ones(3, dtype=np.bool_))
    assert present_shares(stack).is_usable.tolist() == [True, False, False]


def test_a_site_without_a_report_is_not_used() -> None:
    counts = np.full((2, 2, 4), 500.0)
    stack = Stack(counts, np.array([2.0, 2.0]), np.array([True, False]))
    for batch in outcome_estimates(stack, ScoreScale((0.1, 0.2, 0.5), 0.2)).values():
        assert not batch.is_usable[1]
