"""A forecast runs the plan itself on patients that may be looked at."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.canonical import canonical_bytes
from common.errors import ConfigError
from common.study.columns import feature_columns
from common.study.plan import Sgd, StudyPlan
from common.study.plan_file import plan_digest
from common.study.problems import PlanProblems
from simulations.forecast import as_record, forecast, plan_at
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from tests.lib.plans import make_plan


def small_plan() -> StudyPlan:
    plan = make_plan()
    training = plan.training.model_copy(
        update={
            "rounds": 5,
            "local_steps": 1,
            "sampling_probability": 1.0,
            "optimizer": Sgd(kind="sgd", learning_rate=4.0),
            "quorum": 2,
            "update_norm_max": 1e6,
        }
    )
    evaluation = plan.evaluation.model_copy(update={"releases": 1})
    return plan.model_copy(update={"training": training, "evaluation": evaluation})


def population(seed: int) -> list[VirtualSite]:
    rng = np.random.default_rng(seed)
    columns = feature_columns(small_plan())
    sites: list[VirtualSite] = []
    for name in ("east", "north"):
        x = rng.uniform(-1, 1, (150, len(columns))).astype(np.float32)
        y = (rng.random(150) < 1 / (1 + np.exp(-4 * x[:, 0]))).astype(np.float32)
        matrix = FeatureMatrix(columns, x, y, rng.integers(0, 10**6, 150))
        sites.append(VirtualSite(name, 150, matrix))
    return sites


def test_less_privacy_reaches_more_and_infinity_has_no_noise() -> None:
    lines = forecast(small_plan(), population, epsilons=(0.1, math.inf), seeds=(1, 2, 3))
    assert [line.epsilon for line in lines] == [0.1, math.inf]
    assert lines[0].auroc_mean < lines[1].auroc_mean
    assert lines[1].auroc_mean > 0.75
    again = forecast(small_plan(), population, epsilons=(math.inf,), seeds=(1, 2, 3))
    assert again[0] == lines[1]


def test_a_plan_at_another_epsilon_is_checked_by_every_rule() -> None:
    privacy = small_plan().privacy.model_copy(update={"delta": 1e-9})
    with pytest.raises(PlanProblems):  # no noise that makes sense is enough
        plan_at(small_plan().model_copy(update={"privacy": privacy}), 1e-6)
    assert plan_at(small_plan(), math.inf).privacy.epsilon == small_plan().privacy.epsilon


def test_the_norm_bound_is_raised_where_a_smaller_epsilon_needs_it() -> None:
    tight = small_plan()
    tight = tight.model_copy(
        update={"training": tight.training.model_copy(update={"update_norm_max": 10.0})}
    )
    assert plan_at(tight, 0.1).training.update_norm_max > 10.0
    assert plan_at(small_plan(), 0.1).training.update_norm_max == 1e6


def test_one_seed_has_no_spread_and_is_refused() -> None:
    with pytest.raises(ConfigError):
        forecast(small_plan(), population, seeds=(1,))


def test_a_forecast_names_the_plan_that_it_is_about() -> None:
    plan = small_plan()
    lines = forecast(plan, population, epsilons=(math.inf,), seeds=(1, 2))
    record = as_record(plan, lines, population="two invented hospitals")
    assert record["plan_digest"] == plan_digest(plan)
    assert b"infinity" in canonical_bytes(record)
