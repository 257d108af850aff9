"""Intervals: known ones without noise, derivatives against slow ones, and when there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.monitoring_intervals import (
    LEVELS,
    POPULATIONS,
    group_cover,
    noise_sd,
    overall_cover,
)
from common.study.report_tensors import TensorFamily
from server.monitor_board.statistics.calibration_error import calibration_error_interval
from server.monitor_board.statistics.curves import reliability_points, threshold_points
from server.monitor_board.statistics.fairness_estimates import estimate_fairness
from server.monitor_board.statistics.group_intervals import CRITERIA
from server.monitor_board.statistics.intervals import (
    INSUFFICIENT,
    Intervals,
    difference,
    proportion_interval,
)
from server.monitor_board.statistics.multiplicity import holm
from server.monitor_board.statistics.noisy_counts import NoisyCounts, shown_count
from server.monitor_board.statistics.performance import (
    Proportion,
    brier,
    calibration_fit,
    observed_to_expected,
)
from server.monitor_board.statistics.performance_estimates import (
    auroc_interval,
    estimate_performance,
)
from server.monitor_board.statistics.projection import Float
from server.monitor_board.statistics.score_intervals import ScoredCounts
from server.monitor_board.statistics.score_scale import ScoreScale, bin_means

ONE_BIN = Proportion(np.asarray([[False], [True]]), np.asarray([[True], [False]]))
PEOPLE = POPULATIONS[1]


def overall(patients: int, sd: float, seed: int = 0) -> NoisyCounts:
    rng = np.random.default_rng(seed)
    cells = PEOPLE.cells()
    exact = rng.multinomial(patients, cells.ravel() / cells.sum()).reshape(cells.shape)
    return NoisyCounts(exact + np.rint(rng.normal(0, sd, cells.shape)).astype(np.int64), sd)


@given(inside=st.integers(0, 80), outside=st.integers(0, 80))
@settings(max_examples=80, deadline=None)
def test_without_noise_a_rates_interval_is_wilsons(inside: int, outside: int) -> None:
    if inside + outside == 0:
        return
    found = proportion_interval(np.asarray([[float(outside)], [float(inside)]]), ONE_BIN, 0.0)
    wilson = binomtest(inside, inside + outside).proportion_ci(method="wilson")
    assert float(found.low) == pytest.approx(wilson.low, abs=1e-9)
    assert float(found.high) == pytest.approx(wilson.high, abs=1e-9)


def test_a_difference_of_rates_has_newcombes_interval() -> None:
    first = proportion_interval(np.asarray([[14.0], [56.0]]), ONE_BIN, 0.0)
    second = proportion_interval(np.asarray([[32.0], [48.0]]), ONE_BIN, 0.0)
    gap = difference(first, second)  # 56/70 less 48/80, table II of Newcombe 1998
    assert (round(float(gap.low), 4), round(float(gap.high), 4)) == (0.0524, 0.3339)


def test_aurocs_standard_error_is_delongs_without_noise() -> None:
    rng = np.random.default_rng(1)
    without, events = rng.integers(0, 6, 400), rng.integers(1, 7, 120)
    counts = np.stack([np.bincount(without, minlength=7), np.bincount(events, minlength=7)])
    wins = (events[:, None] > without) + 0.5 * (events[:, None] == without)
    slow = wins.mean(axis=1).var() / 120 + wins.mean(axis=0).var() / 400
    found = auroc_interval(counts.astype(float), 0.0)
    assert float(found.value) == pytest.approx(wins.mean(), abs=1e-12)
    assert float(found.standard_error) == pytest.approx(math.sqrt(slow), abs=1e-9)


def test_errors_of_scored_statistics_are_those_of_slow_derivatives() -> None:
    tensor = overall(5_000, 6.0)
    counts = tensor.values.astype(float) + 60  # no cell is projected, so nothing has a kink
    edges = PEOPLE.edges

    def all_of(cells: Float) -> Float:
        means = bin_means(cells.sum(axis=0), edges)
        excess = (cells[1].sum() - (cells.sum(axis=0) * means).sum()) / cells.sum()
        return np.asarray(
            [
                brier(cells, means),
                observed_to_expected(cells, means),
                excess,
                *calibration_fit(cells, means),
            ]
        )

    variance = np.zeros(5)
    for place in np.ndindex(counts.shape):
        step = np.zeros_like(counts)
        step[place] = 0.5
        slope = all_of(counts + step) - all_of(counts - step)
        variance += slope**2 * (counts[place] + tensor.sd**2)
    scored = ScoredCounts(counts, tensor.sd, edges)
    found = [scored.brier(), scored.observed_to_expected(), scored.excess_risk()]
    found += scored.calibration()
    errors = [float(interval.standard_error) for interval in found]
    assert errors == pytest.approx(np.sqrt(variance).tolist(), rel=1e-3)


def test_a_perfect_models_shown_calibration_error_is_not_taken_for_its_own() -> None:
    cells = POPULATIONS[0].cells() * 10_000
    rng = np.random.default_rng(4)
    noisy = cells + rng.normal(0, np.sqrt(cells + 8.45**2), (400, *cells.shape))
    means = bin_means(noisy.sum(axis=-2), POPULATIONS[0].edges)
    found = calibration_error_interval(noisy, means, np.full(400, 8.45))
    assert (found.low <= 0.0013).mean() > 0.92
    assert (found.high > 0).all()
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


@pytest.mark.parametrize(("share", "sufficient"), [(0.24, True), (0.26, False)])
def test_too_much_noise_in_a_denominator_is_insufficient_data(
    share: float, sufficient: bool
) -> None:
    cells = np.asarray([[9_000.0, 0.0], [0.0, 1_000.0]])
    tensor = NoisyCounts(cells, share * 1_000 / math.sqrt(2))
    found = estimate_performance([tensor], ScoreScale((0.5,), 0.5))[0]
    assert found.specificity.is_sufficient  # of 9,000
    assert found.npv.is_sufficient
    assert found.auroc.is_sufficient is sufficient  # of 1,000 with the outcome


def test_fewer_than_eleven_patients_are_insufficient_and_their_cells_not_shown() -> None:
    cells = np.asarray([[400.0, 0.0], [6.0, 4.0]])
    scale = ScoreScale((0.5,), 0.5)
    found = estimate_performance([NoisyCounts(cells, 0.0)], scale)[0]
    assert found.sensitivity == INSUFFICIENT
    assert found.auroc.value is None
    assert found.specificity.is_sufficient
    assert [shown_count(cell) for cell in cells.ravel()] == [400, None, None, None]
    assert [shown_count(cell) for cell in (10.9, 11.0, -3.0)] == [None, 11, None]


def test_calibration_is_insufficient_when_nearly_all_patients_are_in_an_end_bin() -> None:
    for share, sufficient in ((0.75, True), (0.85, False)):
        totals = np.asarray([share, 0.6 - share / 2, 0.25 - share / 4, 0.15 - share / 4]) * 40_000
        cells = np.stack([totals * 0.9, totals * 0.1])
        found = estimate_performance([NoisyCounts(cells, 2.0)], ScoreScale((0.1, 0.2, 0.4), 0.2))
        calibration = (found[0].calibration_error, found[0].observed_to_expected)
        assert [item.is_sufficient for item in calibration] == [sufficient, sufficient]
        assert found[0].brier.is_sufficient
        group = NoisyCounts(np.stack([cells, cells]), 2.0)
        level = estimate_fairness([group], ScoreScale((0.1, 0.2, 0.4), 0.2))[0].levels[0]
        assert level.excess_risk.is_sufficient is sufficient


def test_an_interval_that_says_nothing_is_insufficient_data() -> None:
    values = np.asarray([0.5, 0.5, np.nan])
    half = np.asarray([0.1, 0.3, 0.1])
    many = Intervals(values, values - half, values + half, half / 2)
    found = many.judged(np.asarray([True, True, True]), width_max=0.5).estimates()
    assert [item.is_sufficient for item in found] == [True, False, False]
    assert found[1] == INSUFFICIENT


def test_reports_of_empty_or_negative_counts_are_insufficient_and_raise_nothing() -> None:
    for fill in (0, -5):
        tensor = NoisyCounts(np.full((2, 10), fill, dtype=np.int64), 8.0)
        found = estimate_performance([tensor], PEOPLE.scale)[0]
        assert not found.auroc.is_sufficient
        assert not found.calibration_slope.is_sufficient
        assert not found.prevalence.is_sufficient
        group = NoisyCounts(np.full((3, 2, 4), fill, dtype=np.int64), 8.0)
        gaps = estimate_fairness([group], LEVELS[0].scale)[0].gaps
        assert {gap.p_value for gap in gaps} == {None}
        assert reliability_points(tensor, PEOPLE.scale)[0].observed == INSUFFICIENT


def test_many_reports_at_once_say_what_each_says_alone() -> None:
    tensors = [
        overall(patients, sd, seed=patients) for patients in (800, 9_000) for sd in (0.0, 8.0)
    ]
    together = estimate_performance(tensors, PEOPLE.scale)
    for tensor, found in zip(tensors, together, strict=True):
        alone = estimate_performance([tensor], PEOPLE.scale)[0]
        for name in alone.__dataclass_fields__:
            one, other = getattr(alone, name), getattr(found, name)
            assert one.is_sufficient == other.is_sufficient
            if one.is_sufficient:
                assert one.value == pytest.approx(other.value, abs=1e-12)
                assert one.low == pytest.approx(other.low, abs=1e-12)


def groups(patients: int, sd: float, *, worse: float = 0.0) -> NoisyCounts:
    """Return four levels of one population; the last one's alerts miss some events."""
    rng = np.random.default_rng(patients)
    cells = np.stack([LEVELS[0].cells() * share for share in (0.4, 0.3, 0.2, 0.1)])
    moved = cells[3, 1, 2:] * worse
    cells[3, 1, 2:] -= moved
    cells[3, 1, :2] += moved
    exact = rng.multinomial(patients, cells.ravel() / cells.sum()).reshape(cells.shape)
    return NoisyCounts(exact + np.rint(rng.normal(0, sd, cells.shape)), sd)


def test_a_level_whose_events_are_missed_is_found_and_named_the_worst() -> None:
    fair, unfair = estimate_fairness(
        [groups(40_000, 8.0), groups(40_000, 8.0, worse=0.5)], LEVELS[0].scale
    )
    small = [gap for gap in unfair.gaps if (gap.p_adjusted or 1.0) < 0.05]
    assert (3, "sensitivity") in {(gap.level, gap.criterion) for gap in small}
    assert unfair.worst_levels["sensitivity"] == 3
    assert all((gap.p_adjusted or 1.0) > 0.01 for gap in fair.gaps)
    assert len(fair.gaps) == 4 * len(CRITERIA)
    gap = next(item for item in small if item.criterion == "sensitivity" and item.level == 3)
    assert gap.p_adjusted is not None
    assert gap.p_value is not None
    assert gap.gap.high is not None
    assert gap.p_adjusted >= gap.p_value
    assert gap.gap.high < 0
    assert unfair.equalized_odds_difference is not None
    assert unfair.equalized_odds_difference >= abs(gap.gap.value or 0.0) / 2


def test_of_two_levels_one_is_compared_and_once() -> None:
    tensor = groups(20_000, 4.0)
    two = NoisyCounts(tensor.values[:2], tensor.sd)
    found = estimate_fairness([two], LEVELS[0].scale)[0]
    assert {gap.level for gap in found.gaps} == {0}
    assert all(gap.p_value == gap.p_adjusted for gap in found.gaps)


def test_holm_is_the_slow_rule() -> None:
    p = np.asarray([0.01, np.nan, 0.04, 0.03, 0.005])
    assert holm(p)[[0, 2, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(holm(p)[1])
    assert holm(np.asarray([[0.5, 0.9], [0.01, 0.02]])) == pytest.approx(
        np.asarray([[1.0, 1.0], [0.02, 0.02]])
    )


def test_the_curves_points_are_the_reports_figures() -> None:
    tensor = overall(20_000, 5.0)
    found = estimate_performance([tensor], PEOPLE.scale)[0]
    points = threshold_points(tensor, PEOPLE.scale)
    own = points[PEOPLE.edges.index(PEOPLE.threshold)]
    assert own.sensitivity == found.sensitivity
    assert own.net_benefit == found.net_benefit
    reliability = reliability_points(tensor, PEOPLE.scale)
    assert sum(point.share for point in reliability) == pytest.approx(1.0)
    scores = [point.score for point in reliability]
    assert scores == sorted(scores)


def test_two_thousand_reports_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Two points either way are allowed, and 1.5 are chance."""
    covers = overall_cover((POPULATIONS[1], 10_000, 1.0, 8.45, 2_000))
    covers += group_cover((10_000, 1.0, 11.95, 2_000))
    assert [cover for cover in covers if not 0.915 <= cover.held <= 0.985] == []
    assert all(cover.missed < 0.085 for cover in covers)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0])
def test_95_percent_intervals_hold_the_truth_in_93_to_97_of_100(epsilon: float) -> None:
    """At 10,000 patients. At 1,000 few reports show an interval that misses."""
    sd, of_groups = noise_sd(epsilon, TensorFamily.OVERALL), noise_sd(epsilon, TensorFamily.GROUPS)
    for patients in (10_000, 1_000):
        covers = [
            cover
            for people in POPULATIONS
            for cover in overall_cover((people, patients, epsilon, sd, 4_000))
        ]
        covers += group_cover((patients, epsilon, of_groups, 4_000))
        assert [cover for cover in covers if cover.missed > 0.07] == []
        if patients == 10_000:
            assert [cover for cover in covers if not 0.93 <= cover.held <= 0.97] == []
            assert [cover for cover in covers if cover.shown < 0.8] == []
