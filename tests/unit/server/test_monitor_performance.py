"""Without noise the board's figures are scikit-learn's and fairlearn's on binned scores."""

from __future__ import annotations

import fairlearn.metrics as by_fairlearn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from common.errors import InternalError
from server.monitor_board.statistics.fairness_estimates import estimate_fairness
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.statistics.performance import (
    auroc,
    brier,
    calibration_fit,
    net_benefit,
    observed_to_expected,
    proportions,
)
from server.monitor_board.statistics.projection import Float, project_counts
from server.monitor_board.statistics.score_scale import ScoreScale, bin_means

EDGES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
ALERT = EDGES.index(0.2) + 1
LEVELS = 5


def rows(number: int = 6_000) -> tuple[Float, Float, Float]:
    """Return outcome, score and level of patients."""
    rng = np.random.default_rng(3)
    outcome = (rng.random(number) < 0.15).astype(np.float64)
    score = expit(rng.normal(1.2 * outcome - 2.0, 1.0))
    return outcome, score, rng.choice(LEVELS, number, p=[0.4, 0.3, 0.15, 0.1, 0.05])


def counted() -> tuple[Float, Float, Float, Float, Float]:
    """Return counts [levels, 2, bins], each bin's mean, and the rows with their bins' means."""
    outcome, score, level = rows()
    place = np.searchsorted(EDGES, score, side="right")
    counts = np.zeros((LEVELS, 2, len(EDGES) + 1))
    np.add.at(counts, (level.astype(int), outcome.astype(int), place), 1)
    means = np.bincount(place, score) / np.bincount(place)
    return counts, means, outcome, means[place], level


def test_auroc_and_brier_score_are_scikit_learns_on_binned_scores() -> None:
    counts, means, outcome, binned, _ = counted()
    overall = counts.sum(axis=0)
    assert auroc(overall) == pytest.approx(roc_auc_score(outcome, binned), abs=1e-9)
    assert brier(overall, means) == pytest.approx(brier_score_loss(outcome, binned), abs=1e-9)


def test_rates_at_the_threshold_are_scikit_learns() -> None:
    counts, _, outcome, binned, _ = counted()
    alert = binned >= EDGES[ALERT - 1]
    true_negative, false_positive, false_negative, true_positive = confusion_matrix(
        outcome, alert
    ).ravel()
    expected = {
        "prevalence": outcome.mean(),
        "alert_rate": alert.mean(),
        "sensitivity": recall_score(outcome, alert),
        "specificity": recall_score(outcome, alert, pos_label=0),
        "ppv": precision_score(outcome, alert),
        "npv": true_negative / (true_negative + false_negative),
        "false_positive_rate": false_positive / (false_positive + true_negative),
    }
    for name, cells in proportions(len(EDGES) + 1, ALERT).items():
        assert cells.of(counts.sum(axis=0)) == pytest.approx(expected[name], abs=1e-9), name
    benefit = (true_positive - false_positive * 0.2 / 0.8) / outcome.size
    assert net_benefit(counts.sum(axis=0), ALERT, 0.2) == pytest.approx(benefit, abs=1e-9)


def test_calibration_is_that_of_rows_with_binned_scores() -> None:
    counts, means, outcome, binned, _ = counted()
    overall = counts.sum(axis=0)
    intercept, slope = calibration_fit(overall, means)
    x = logit(binned)[:, None]
    slow = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(x, outcome)
    assert slope == pytest.approx(slow.coef_[0, 0], abs=1e-9)
    assert intercept == pytest.approx(slow.intercept_[0], abs=1e-9)
    assert observed_to_expected(overall, means) == pytest.approx(
        outcome.sum() / binned.sum(), abs=1e-9
    )


def test_fairness_differences_are_fairlearns() -> None:
    counts, _, outcome, binned, level = counted()
    alert = (binned >= EDGES[ALERT - 1]).astype(int)
    asked = {"y_true": outcome.astype(int), "y_pred": alert, "sensitive_features": level}
    [found] = estimate_fairness([NoisyCounts(counts, 0.0)], ScoreScale(EDGES, 0.2))
    spread = found.largest_differences
    frame = by_fairlearn.MetricFrame(metrics=precision_score, **asked)
    pairs = [
        (spread["alert_rate"], by_fairlearn.demographic_parity_difference(**asked)),
        (found.demographic_parity_ratio, by_fairlearn.demographic_parity_ratio(**asked)),
        (spread["sensitivity"], by_fairlearn.equal_opportunity_difference(**asked)),
        (found.equalized_odds_difference, by_fairlearn.equalized_odds_difference(**asked)),
        (spread["ppv"], frame.difference()),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_noise_of_mean_zero_leaves_raw_statistics_right_on_average() -> None:
    counts, means, *_ = counted()
    overall = counts.sum(axis=0)
    rng = np.random.default_rng(5)
    noisy = overall + rng.normal(0, 5, (20_000, *overall.shape))
    for statistic in (auroc, lambda cells: brier(cells, means)):
        drawn = statistic(noisy)
        margin = 5 * drawn.std() / np.sqrt(len(drawn)) + 1e-4
        assert abs(drawn.mean() - statistic(overall)) < margin
    projected = auroc(project_counts(noisy, cell_axes=2))
    assert abs(projected.mean() - auroc(overall)) < 0.01


@given(
    counts=arrays(np.int64, (2, 5), elements=st.integers(0, 30)).filter(
        lambda cells: bool((cells.sum(axis=1) > 0).all())
    )
)
@settings(max_examples=60, deadline=None)
def test_auroc_of_any_counts_is_scikit_learns(counts: np.ndarray) -> None:
    outcome = np.repeat([0, 1], counts.sum(axis=1))
    place = np.concatenate([np.repeat(np.arange(5), row) for row in counts])
    assert auroc(counts.astype(float)) == pytest.approx(roc_auc_score(outcome, place), abs=1e-9)


@given(values=arrays(np.float64, 7, elements=st.floats(-50, 50)))
@settings(max_examples=200, deadline=None)
def test_the_projection_is_the_nearest_nonnegative_tensor_with_the_total(
    values: np.ndarray,
) -> None:
    found = project_counts(values)
    total = max(values.sum(), 1.0)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(total, abs=1e-8)
    # The nearest point's direction makes no acute angle with any way to another allowed point.
    for corner in np.eye(7) * total:
        assert (values - found) @ (corner - found) <= 1e-6


def test_counts_that_can_be_are_not_changed_by_the_projection() -> None:
    counts = np.asarray([[3.0, 0.0, 5.0], [1.0, 1.0, 0.0]])
    assert np.array_equal(project_counts(counts, cell_axes=2), counts)


def test_bin_means_of_normal_logits_are_exact() -> None:
    at = np.linspace(-12, 8, 2_000_001)
    weight = np.exp(-((at + 2.1) ** 2) / (2 * 1.3**2))
    place = np.searchsorted(EDGES, expit(at), side="right")
    totals = np.bincount(place, weight)
    means = np.bincount(place, weight * expit(at)) / totals
    found = bin_means(totals / totals.sum() * 1e9, EDGES)
    assert found == pytest.approx(means, abs=2e-4)


def test_bin_means_are_inside_their_bins_whatever_the_noise() -> None:
    rng = np.random.default_rng(2)
    totals = np.concatenate(
        [rng.normal(0, 20, (500, 10)), np.eye(10) * 300, np.zeros((1, 10)), -np.ones((1, 10))]
    )
    found = bin_means(totals, EDGES)
    bounds = np.asarray((0.0, *EDGES, 1.0))
    assert ((found > bounds[:-1]) & (found < bounds[1:])).all()
    assert bin_means(np.asarray([60.0, 40.0]), (0.5,)).shape == (2,)


def test_means_from_counts_bring_calibration_near_that_of_the_scores() -> None:
    counts, _, outcome, _, _ = counted()
    _, score, _ = rows()
    totals = counts.sum(axis=(0, 1))
    overall = counts.sum(axis=0)
    exact = outcome.sum() / score.sum()
    middles = (np.asarray((0.0, *EDGES)) + np.asarray((*EDGES, 1.0))) / 2
    assert abs(observed_to_expected(overall, bin_means(totals, EDGES)) - exact) < 0.005
    assert abs(observed_to_expected(overall, middles) - exact) > 0.015


def test_a_threshold_between_the_edges_is_refused() -> None:
    with pytest.raises(InternalError, match="score scale"):
        ScoreScale(EDGES, 0.25)
    assert ScoreScale(EDGES, 0.2).alert_bin == ALERT
