"""From noised moments to a scaling: no number that noise alone could have made."""

from __future__ import annotations

import numpy as np
import pytest

from common.study.scaling import SECOND_MOMENT_OFFSET, Scaling, is_in_bounds, sensitivity
from server.scaling_estimate import COUNT_TO_NOISE_MIN, estimate_scaling
from tests.lib.plans import make_plan

PLAN = make_plan(scaling={"kind": "dp_mean_variance"})


def _moments(count: float, mean: float, deviation: float) -> np.ndarray:
    second = mean**2 + deviation**2
    column = np.array([mean, second - SECOND_MOMENT_OFFSET, 1.0]) * count
    return np.repeat(column[:, None], 2, axis=1)


def _estimate(moments: np.ndarray, noise_multiplier: float = 0.0, sites: int = 1) -> Scaling:
    return estimate_scaling(moments, PLAN, noise_multiplier=noise_multiplier, sites=sites)


def test_exact_sums_give_the_mean_and_deviation_that_they_are_of() -> None:
    found = _estimate(_moments(1000, -0.4, 0.2))
    np.testing.assert_allclose(found.mean, [-0.4, -0.4], rtol=1e-6)
    np.testing.assert_allclose(found.deviation, [0.2, 0.2], rtol=1e-6)


def test_a_count_that_its_noise_could_have_made_leaves_the_feature_as_it_is() -> None:
    noise = 5.0 * sensitivity(2)
    for count in (0.0, -50.0, COUNT_TO_NOISE_MIN * noise * 0.999):
        found = _estimate(_moments(count, 0.5, 0.1), 5.0)
        assert found.mean.tolist() == [0, 0]
        assert found.deviation.tolist() == [1, 1]
    assert _estimate(_moments(COUNT_TO_NOISE_MIN * noise * 1.001, 0.5, 0.1), 5.0).mean[0] == 0.5


def test_a_deviation_is_never_below_the_plans_nor_below_what_noise_hides() -> None:
    assert _estimate(_moments(1000, 0.5, 0.0)).deviation[0] == np.float32(0.01)
    # A thousand patients and noise of 20: a variance below about 0.02 is not told from none.
    hidden = _estimate(_moments(1000, 0.0, 0.0), 20 / sensitivity(2)).deviation[0]
    assert hidden**2 == pytest.approx(20 / 1000 * np.sqrt(1 + 0.25), rel=0.01)


def test_whatever_arrives_the_scaling_is_within_the_bounds_that_sites_check() -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        found = _estimate(rng.normal(0, 1000, (3, 2)), float(rng.uniform(0, 50)), sites=4)
        assert is_in_bounds(found, PLAN)


def test_the_noise_in_a_squared_mean_is_given_back() -> None:
    """The estimated variance is right on average, and its stated noise is its noise."""
    rng = np.random.default_rng(11)
    noise, count = 4.0 * sensitivity(2), 400.0
    exact = _moments(count, 0.6, 0.5)
    noised = [exact + rng.normal(0, noise, exact.shape) for _ in range(20_000)]
    variances = np.array([_estimate(item, 4.0).deviation.astype(float) ** 2 for item in noised])
    error = 4 * variances.std() / np.sqrt(variances.size)
    assert abs(variances.mean() - 0.25) < error + 2 * (noise / count) ** 2 * 0.25
    without = 0.25 - (noise / count) ** 2
    assert abs(variances.mean() - 0.25) < abs(variances.mean() - without)
