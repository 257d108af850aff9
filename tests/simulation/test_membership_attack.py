"""The membership attack finds members where nothing protects them, and stays under the bound."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations.attack_scores import (
    clopper_pearson,
    likelihood_ratios,
    most_true_positives,
    rate_at,
)
from simulations.auroc import auroc
from simulations.cli_attack import attack_text
from simulations.membership_attack import LIMIT, AttackSize, attack_record, attack_studies
from tests.lib.plans import make_document, make_plan

SIZE = AttackSize(studies=12, targets=40, patients=20, sites=2)


def overfitting_plan() -> StudyPlan:
    """Forty values of sixty patients: without noise a linear model knows them by heart."""
    value = make_document()["features"][1] | {"missing": "none_allowed"}
    return make_plan(
        features=[value | {"name": f"value_{place}"} for place in range(40)],
        fairness_groups=[],
        monitoring=...,
        training__rounds=2,
        training__local_steps=60,
        training__sampling_probability=1.0,
        training__optimizer={"kind": "adam", "learning_rate": 0.1},
        training__update_norm_max=1e6,
        privacy__clipping_norm=1e3,
        evaluation__releases=1,
    )


@pytest.mark.slow
def test_an_unprotected_model_that_overfits_gives_its_members_away() -> None:
    result = attack_studies(overfitting_plan(), SIZE, seed=1, randomness="noiseless")
    assert result.auc > 0.58
    [tenth] = [rate for rate in result.rates if rate.false_positive_rate == 0.1]
    assert tenth.low > 0.1
    assert result.is_within_promise  # there is none to break
    assert not replace(result, epsilon=0.05).is_within_promise
    assert "no promise" in attack_text(result)


@pytest.mark.slow
def test_the_private_model_of_the_same_plan_stays_under_its_bound() -> None:
    plan = overfitting_plan()
    result = attack_studies(plan, SIZE, seed=1, randomness="reproducible")
    assert result.is_within_promise
    assert result.one_run.epsilon_min <= plan.privacy.epsilon
    assert result.auc < 0.58
    assert all(rate.low <= rate.bound < 1 for rate in result.rates)


def test_the_report_says_that_a_failed_attack_proves_nothing() -> None:
    assert "below" in LIMIT
    assert "proves nothing" in LIMIT
    assert attack_record([])["limit"] == LIMIT


def test_an_attack_too_small_to_tell_anything_is_refused() -> None:
    with pytest.raises(ConfigError):
        attack_studies(make_plan(), replace(SIZE, studies=2), seed=1, randomness="noiseless")


def test_fewer_hospitals_than_the_quorum_are_refused_before_anything_runs() -> None:
    plan = make_plan(training__quorum=3)
    with pytest.raises(ConfigError, match="cannot be attacked with these hospitals"):
        attack_studies(plan, replace(SIZE, sites=2), seed=1, randomness="noiseless")


def test_the_interval_is_clopper_and_pearsons() -> None:
    for found, count in ((0, 10), (3, 10), (10, 10), (7, 900)):
        exact = binomtest(found, count).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(clopper_pearson(found, count), (exact.low, exact.high))


def test_the_attacks_auc_is_scikit_learns_ties_included() -> None:
    rng = np.random.default_rng(1)
    scores, is_in = rng.integers(0, 9, 300).astype(np.float64), rng.random(300) < 0.4
    assert auroc(is_in, scores) == pytest.approx(roc_auc_score(is_in, scores))


def test_the_bound_is_that_of_any_test_of_a_mechanism_with_this_promise() -> None:
    # The Laplace mechanism has exactly (epsilon, 0), and its best test meets the bound.
    epsilon = 0.7
    for false_positive in (0.01, 0.2, 0.45):
        threshold = -math.log(2 * false_positive)  # in scales, above the "out" location 0
        gap = threshold - epsilon
        power = 1 - 0.5 * math.exp(gap) if gap < 0 else 0.5 * math.exp(-gap)
        bound = most_true_positives(false_positive, epsilon=epsilon, delta=0.0)
        assert power <= bound + 1e-12
        if gap >= 0:
            assert bound == pytest.approx(power)
    assert most_true_positives(0.3, epsilon=math.inf, delta=0.0) == 1.0
    assert most_true_positives(0.0, epsilon=1.0, delta=1e-3) == 1e-3


def test_likelihood_ratios_are_those_of_the_true_normal_distributions() -> None:
    rng = np.random.default_rng(2)
    is_in = rng.random((4000, 3)) < 0.5
    shadow = rng.normal(np.where(is_in, [2.0, 1.0, 0.0], 0.0), np.where(is_in, 1.0, 2.0))
    tested = rng.normal(0, 2, (5, 3))
    exact = norm.logpdf(tested, [2.0, 1.0, 0.0], 1.0) - norm.logpdf(tested, 0.0, 2.0)
    np.testing.assert_allclose(likelihood_ratios(shadow, is_in, tested), exact, atol=0.5)


def test_a_rate_counts_members_above_the_threshold_that_keeps_false_alarms_low() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01])
    is_in = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    strict = rate_at(scores, is_in, 0.0, epsilon=1.0, delta=0.0)
    assert (strict.true_positives, strict.false_positives) == (2, 0)
    loose = rate_at(scores, is_in, 0.12, epsilon=1.0, delta=0.0)
    assert (loose.true_positives, loose.false_positives) == (3, 1)
