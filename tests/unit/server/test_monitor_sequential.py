"""Watching over time: few false alarms in a year, and a change is not learned."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from common.false_discovery import benjamini_hochberg
from server.monitor_board.comparisons import change_to_outside, fall_from_past
from server.monitor_board.statistics.estimates import Estimates, outside_p_value
from server.monitor_board.statistics.sequential import (
    Batch,
    alarm_level,
    follow,
    log_e_value,
    look_back,
    next_level,
)

Floats = npt.NDArray[np.float64]
BOUNDS = (-0.5, 0.5)


def _batches(values: Floats) -> list[Batch[Estimates]]:
    """Return one batch for each row of [reports, sites], every estimate with variance 1."""
    sites = values.shape[1]
    return [Batch(Estimates(row, np.ones(sites)), np.ones(sites, dtype=np.bool_)) for row in values]


def test_the_e_value_of_a_uniform_p_value_is_one_on_average() -> None:
    p_values = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert np.exp(log_e_value(p_values)).mean() == pytest.approx(1.0, abs=2e-3)


def test_levels_follow_a_slow_reference() -> None:
    rng = np.random.default_rng(2)
    level, slow = np.zeros(1), 0.0
    for p_value in rng.uniform(0, 0.3, 30):
        level = next_level(level, np.array([p_value]), alarm=5.0)
        slow = min(max(slow, 0.0) + math.log(0.5 / math.sqrt(p_value)), 6.0)
        assert level[0] == pytest.approx(slow)
    assert next_level(level, np.array([np.nan]), alarm=5.0)[0] == level[0]


def test_unchanged_quantities_alarm_in_no_more_than_the_promised_share_of_years() -> None:
    rng = np.random.default_rng(11)
    sites, tests, reports = 4_000, 5, 52
    alarm = alarm_level(tests=tests, reports_per_year=reports, alpha=0.05)
    alarmed = np.zeros(sites, dtype=np.bool_)
    for _ in range(tests):
        values = rng.normal(0, 1, (reports + 1, sites))
        reference, *later = _batches(values)
        track = follow(later, reference, compare=change_to_outside(*BOUNDS), alarm=alarm)
        alarmed |= (track.levels[:, :-1] >= alarm).any(axis=0)
    assert alarmed.mean() <= 0.05


def test_a_fixed_noisy_reference_would_break_that_promise() -> None:
    rng = np.random.default_rng(12)
    sites, reports = 4_000, 52
    alarm = alarm_level(tests=1, reports_per_year=reports, alpha=0.05)
    values = rng.normal(0, 1, (reports, sites)) - rng.normal(0, 1, sites)

    level, alarmed = np.zeros(sites), np.zeros(sites, dtype=np.bool_)
    for row in values:
        level = next_level(level, 2 * ndtr(-np.abs(row) / math.sqrt(2)), alarm=alarm)
        alarmed |= level >= alarm
    assert alarmed.mean() > 0.05


def test_after_an_alarm_the_past_takes_in_no_more() -> None:
    alarm = alarm_level(tests=1, reports_per_year=52, alpha=0.05)
    values = np.zeros((40, 1))
    values[5:] = 9.0
    reference, *later = _batches(values)
    track = follow(later, reference, compare=change_to_outside(*BOUNDS), alarm=alarm)
    assert (track.levels[6:, 0] >= alarm).all()
    assert track.comparisons[-1].change[0] == pytest.approx(
        track.comparisons[6].change[0], abs=1e-12
    )


def test_a_change_that_is_over_is_forgotten_within_a_dozen_reports() -> None:
    alarm = alarm_level(tests=50, reports_per_year=52, alpha=0.05)
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (60, 200))
    values[5:30] += 50.0
    reference, *later = _batches(values)
    track = follow(later, reference, compare=change_to_outside(*BOUNDS), alarm=alarm)
    assert (track.levels[28, :-1] >= alarm).all()
    assert (track.levels[44, :-1] < alarm).mean() > 0.9


def test_a_drift_too_slow_for_the_pooled_past_is_seen_by_the_look_at_the_reference() -> None:
    alarm = alarm_level(tests=60, reports_per_year=52, alpha=0.04)
    first, *later = _batches(np.linspace(0, -1.6, 53)[:, None])
    reference = Batch(Estimates(first.items.value, np.full(1, 0.01)), first.is_usable)
    compare = fall_from_past(0.5)
    track = follow(later, reference, compare=compare, alarm=alarm)
    look = look_back(later[-13:], reference, compare=compare)
    assert track.levels.max() < alarm
    assert look.p_value[0] < 1e-4
    assert look.is_beyond[0]


def test_a_site_without_a_reference_begins_with_its_first_report() -> None:
    reference, *later = _batches(np.zeros((4, 2)))
    without = Batch(reference.items, np.array([True, False]))
    track = follow(later, without, compare=change_to_outside(*BOUNDS), alarm=5.0)
    assert np.isnan(track.comparisons[0].p_value[1])
    assert not np.isnan(track.comparisons[1].p_value[1])
    assert not np.isnan(track.comparisons[0].p_value[0])


def test_within_bounds_a_p_value_is_never_small() -> None:
    inside = Estimates(np.array([-0.5, 0.0, 0.5]), np.full(3, 0.04))
    assert (outside_p_value(inside, -0.5, 0.5) >= 0.5).all()
    beyond = Estimates(np.array([1.5]), np.array([0.04]))
    assert outside_p_value(beyond, -0.5, 0.5)[0] == pytest.approx(2.9e-7, rel=0.02)


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.2]))
def test_benjamini_hochberg_finds_what_scipy_finds(p_values: list[float], share: float) -> None:
    found = benjamini_hochberg(np.array(p_values), false_share_max=share)
    adjusted = false_discovery_control(np.array(p_values), method="bh")
    clear = np.abs(adjusted - share) > 1e-12
    assert (found == (adjusted <= share))[clear].all()


def test_what_was_not_tested_does_not_count_as_a_test() -> None:
    p_values = np.array([0.04, np.nan, np.nan, np.nan])
    assert benjamini_hochberg(p_values, false_share_max=0.05).tolist() == [True, *[False] * 3]
