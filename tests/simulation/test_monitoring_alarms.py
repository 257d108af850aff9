"""The board's alarms keep their promises over simulated years; a smaller benchmark, fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.monitoring_alarms import (
    SEED,
    WEEKS,
    NullYears,
    null_years,
    reports_to_alert,
    shifted_world,
)
from benchmarks.monitoring_readers import board_run, evidently_run, rules_verdicts
from benchmarks.monitoring_rows import draw_rows
from tests.lib.monitored import monitored_plan

PLAN = monitored_plan()
OF_CHANGE = ("sentinel", "missing", "scores", "prevalence", "auroc", "calibration-slope")
OF_TOLERANCE = ("sensitivity-gap", "false-positive-gap", "predictive-value-gap", "excess-risk-gap")


@pytest.fixture(scope="module")
def years() -> NullYears:
    """50 sites for 52 weeks in which nothing changes."""
    return null_years(PLAN, patients=2_000, reference=5_000, site_years=50, seed=SEED)


@pytest.mark.slow
def test_each_test_alarms_falsely_about_once_in_a_hundred(years: NullYears) -> None:
    for metric in OF_CHANGE:
        tests, rate = years.rates[metric]
        # Beside the promised half of a per cent, four standard errors of the simulation.
        slack = 0.005 + 4 * (0.01 * 0.99 / tests) ** 0.5
        assert abs(rate - 0.01) <= slack, metric
    for metric in OF_TOLERANCE:
        assert years.rates[metric][1] <= 0.015, metric


@pytest.mark.slow
def test_in_at_most_one_of_twenty_years_does_an_unchanged_site_alarm(years: NullYears) -> None:
    assert years.at_alarm <= 0.05
    assert years.alerted <= 0.05


@pytest.mark.slow
def test_a_quarter_deviation_in_ten_of_twenty_features_alerts_within_two_reports() -> None:
    found = reports_to_alert(
        PLAN, shifted_world(), patients=10_000, reference=20_000, runs=40, seed=SEED
    )
    assert sum(item is not None and item <= 2 for item in found) >= 0.95 * len(found)


@pytest.mark.slow
def test_default_rules_without_correction_flag_a_column_in_every_unchanged_year() -> None:
    for year in range(2):
        rng = np.random.default_rng([SEED, year])
        rows = draw_rows(PLAN, [0.0] * WEEKS, patients=1_000, reference=1_000, rng=rng)
        assert evidently_run(rules_verdicts(rows)).flagged.any()
        assert not board_run(PLAN, rows, rng=rng).is_alarmed
