"""Evaluation counts: the exact counts plus noise of whole numbers with the stated distribution."""

from __future__ import annotations

import numpy as np

from common.canonical import digest_bytes
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.messages import EvaluationCounts
from common.study.columns import feature_columns, initial_parameters
from site_client.features.matrix import FeatureMatrix
from site_client.training.evaluation import count_by_score, evaluate, score
from site_client.training.randomness import Randomness
from tests.lib.plans import make_plan

PLAN = make_plan()
PATIENTS = 200
MECHANISM = DiscreteGaussianCounts(3.5, 1)


def _held_out() -> FeatureMatrix:
    source = np.random.default_rng(1)
    columns = feature_columns(PLAN)
    return FeatureMatrix(
        columns=tuple(columns),
        x=source.uniform(-1, 1, (PATIENTS, len(columns))).astype(np.float32),
        y=source.integers(0, 2, PATIENTS).astype(np.float32),
        part=np.zeros(PATIENTS, dtype=np.int64),
    )


def _evaluate(randomness: Randomness) -> EvaluationCounts:
    return evaluate(
        _held_out(),
        initial_parameters(PLAN),
        plan=PLAN,
        model_version=digest_bytes("model"),
        declared_cohort_size=200,
        mechanism=MECHANISM,
        randomness=randomness,
    )


def test_the_noise_is_of_whole_numbers_and_has_the_stated_spread() -> None:
    held_out = _held_out()
    probabilities = score(PLAN, initial_parameters(PLAN), held_out.x)
    exact = count_by_score(probabilities, held_out.y, bins=PLAN.evaluation.score_bins)
    assert exact.sum() == PATIENTS  # each patient is in one cell
    noise = []
    for seed in range(100):
        counts = _evaluate(Randomness.reproducible(seed))
        assert all(type(value) is int for row in counts.counts for value in row)
        assert counts.noise_multiplier == 3.5
        noise.append(np.asarray(counts.counts) - exact)
    drawn = np.asarray(noise)
    assert abs(drawn.mean()) < 6 * 3.5 / np.sqrt(drawn.size)
    assert abs(drawn.var() / 3.5**2 - 1) < 6 * np.sqrt(2 / drawn.size)


def test_the_systems_noise_is_never_the_same_and_the_test_modes_is() -> None:
    assert _evaluate(Randomness.reproducible(4)) == _evaluate(Randomness.reproducible(4))
    system = [_evaluate(Randomness.from_system()).counts for _ in range(2)]
    assert system[0] != system[1]
