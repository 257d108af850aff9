"""The audit passes the product and catches each planted bug, by the check that is meant for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from common.command_line import run_command
from common.errors import AuditError
from common.study.plan import Adam, MultilayerPerceptron, ResidualPerceptron, Sgd, StudyPlan
from common.study.plan_file import read_plan
from simulations.audit.canaries import log_likelihood_ratio
from simulations.audit.one_run import audit_guesses, epsilon_lower_bound
from simulations.audit.report import AuditReport
from simulations.audit.run import run_audit
from simulations.audit.shadow import AuditedParts, ShadowSize, planned_round
from simulations.cli import app
from site_client.training import dp_sgd_engine, noisy_optimizer
from site_client.training.randomness import Randomness
from tests.lib import planted_bugs
from tests.lib.plans import EXAMPLES

PLAN = read_plan(EXAMPLES / "heart-disease.toml")
SIZE = ShadowSize(rounds=PLAN.training.rounds, patients=200, canaries=250)
MODELS: dict[str, dict[str, Any]] = {
    "logistic regression": {},
    "perceptron": {"model": MultilayerPerceptron(kind="mlp", hidden=(8, 4))},
    "residual perceptron": {"model": ResidualPerceptron(kind="residual_mlp", width=6, blocks=1)},
}


def plan_of(model: str = "logistic regression", **training: Any) -> StudyPlan:
    changed = PLAN.training.model_copy(update=training)
    return PLAN.model_copy(update=MODELS[model] | {"training": changed})


def with_epsilon(epsilon: float) -> StudyPlan:
    return PLAN.model_copy(
        update={"privacy": PLAN.privacy.model_copy(update={"epsilon": float(epsilon)})}
    )


@dataclass(frozen=True)
class Bug:
    """A planted bug, and the checks of which each must fail.

    Args:
        caught_by: names of checks.
        parts: of the audited parts.
        engine_module: names in the engine's module, with what makes their replacement.
        model, training: of the plan.
    """

    caught_by: set[str]
    parts: dict[str, Any] = field(default_factory=dict)
    engine_module: dict[str, Callable[[], Any]] = field(default_factory=dict)
    model: str = "logistic regression"
    training: dict[str, Any] = field(default_factory=dict)


BUGS = {
    "noise at 1/32": Bug(
        {"noise-deviation", "noise-shape"},
        engine_module={"NoisyOptimizer": lambda: planted_bugs.NoiseForAnotherNorm},
    ),
    "noise reused across rounds": Bug(
        {"noise-independence"},
        {"engine": lambda choose: planted_bugs.NoiseSeededInEachRound(choose_sum=choose)},
    ),
    "noise reused across studies": Bug(
        {"noise-independence"},
        {"randomness": lambda: Randomness.reproducible(0)},
    ),
    "engine and accounting begin anew in each round": Bug(
        {"claim"},
        {
            "engine": lambda choose: planted_bugs.ForgetfulEngine(choose_sum=choose),
            "plan_round": planted_bugs.calibrated_for_one_round,
            "claim": planted_bugs.claim_of_the_last_round,
        },
    ),
    "one layer is not clipped": Bug(
        {"contribution-norm", "contribution-gradient"},
        {"choose_sum": planted_bugs.one_layer_left_out_of_the_norm},
        model="perceptron",
    ),
    "one layer of a residual model is not clipped": Bug(
        {"contribution-norm", "contribution-gradient"},
        {"choose_sum": planted_bugs.one_layer_left_out_of_the_norm},
        model="residual perceptron",
    ),
    "the bias is not clipped": Bug(
        {"contribution-norm", "contribution-gradient"},
        {"choose_sum": planted_bugs.bias_left_out_of_the_norm},
    ),
    "empty batches are skipped": Bug(
        {"steps"}, engine_module={"NoisyOptimizer": lambda: planted_bugs.EmptyBatchSkipped}
    ),
    "empty batches are drawn again": Bug(
        {"sampling-batch-sizes"},
        engine_module={"draw": lambda: planted_bugs.never_empty_draw},
    ),
    "shuffling claimed as Poisson sampling": Bug(
        # How often a patient is drawn fails too, but new seats in each round blur it.
        {"sampling-batch-sizes", "sampling-pairs"},
        engine_module={"draw": planted_bugs.ShuffledBatches},
    ),
    "fixed batches claimed as Poisson sampling": Bug(
        {"sampling-batch-sizes"},
        engine_module={"draw": lambda: planted_bugs.fixed_size_draw},
    ),
    "momentum remembers an attempt that never left": Bug(
        {"updates"},
        engine_module={"RoundStart": lambda: planted_bugs.NoRoundStart},
        training={"optimizer": Sgd(kind="sgd", learning_rate=0.1, momentum=0.9)},
    ),
    "a clean statistic added to the update": Bug(
        {"updates"}, {"engine": lambda choose: planted_bugs.CleanLeakingEngine(choose_sum=choose)}
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_each_planted_bug_is_caught_by_the_check_that_is_meant_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = BUGS[name]
    for replaced, make in bug.engine_module.items():
        module = noisy_optimizer if replaced == "NoisyOptimizer" else dp_sgd_engine
        monkeypatch.setattr(module, replaced, make())
    report = run_audit(plan_of(bug.model, **bug.training), SIZE, parts=AuditedParts(**bug.parts))
    assert bug.caught_by <= set(report.failed)


@pytest.mark.parametrize("model", MODELS)
def test_the_product_passes_every_check(model: str) -> None:
    report = run_audit(plan_of(model), SIZE)
    assert report.failed == ()
    assert report.epsilon <= PLAN.privacy.epsilon


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": Sgd(kind="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.01)},
        {"optimizer": Adam(kind="adam", learning_rate=0.01, weight_decay=0.1)},
        {"proximal_term": 0.3, "positive_class_weight": 4.0},
        {"update_norm_max": 0.01},
    ],
    ids=["momentum", "adam", "proximal", "projected"],
)
def test_every_training_option_of_a_plan_passes(training: dict[str, Any]) -> None:
    assert run_audit(plan_of("perceptron", **training), SIZE).failed == ()


def test_noise_at_one_32nd_violates_the_one_run_bound_at_epsilon_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noisy_optimizer, "NoisyOptimizer", planted_bugs.NoiseForAnotherNorm)
    report = run_audit(with_epsilon(1), SIZE)
    assert "one-run" in report.failed
    assert report.one_run.epsilon_min > 2.5


def test_accounting_that_begins_anew_violates_the_one_run_bound_over_many_rounds() -> None:
    plan = with_epsilon(1)
    training = plan.training.model_copy(update={"rounds": 60, "local_steps": 2})
    parts = AuditedParts(**BUGS["engine and accounting begin anew in each round"].parts)
    size = ShadowSize(rounds=60, patients=50, canaries=500)
    report = run_audit(plan.model_copy(update={"training": training}), size, parts=parts)
    assert report.epsilon <= 1
    assert report.one_run.epsilon_min > 1.3
    assert {"claim", "one-run"} <= set(report.failed)


def test_a_healthy_mechanism_violates_the_one_run_bound_with_negligible_probability() -> None:
    # The same scores from numpy alone: no engine, 400 audits of 50 steps and 1,000 canaries.
    rng = np.random.default_rng(4)
    steps, probability, epsilon, delta = 50, 0.5, 3.0, 1e-4
    noise = planned_round(PLAN).noise_multiplier
    bounds = []
    for _ in range(400):
        included = rng.random(1000) < 0.5
        drawn = (rng.random((steps, 1000)) < probability) & included
        seen = drawn + noise * rng.standard_normal((steps, 1000))
        scores = log_likelihood_ratio(
            seen, noise_multiplier=noise, sampling_probability=probability
        ).sum(0)
        bounds.append(audit_guesses(scores, included, delta=delta))
    right = np.array([result.correct for result in bounds])
    assert max(result.epsilon_min for result in bounds) < epsilon / 1.8
    # Guesses are nearly independent: how likely is a count whose bound would pass epsilon?
    needed = next(
        v
        for v in range(200, 401)
        if epsilon_lower_bound(canaries=1000, guesses=400, correct=v, delta=delta) > epsilon
    )
    assert binom.sf(needed - 1, 400, right.mean() / 400) < 1e-15


def test_reproducible_streams_give_the_same_audit() -> None:
    def run() -> AuditReport:
        seeds = iter(range(10_000))
        parts = AuditedParts(randomness=lambda: Randomness.reproducible(next(seeds)))
        return run_audit(PLAN, ShadowSize(3, 100, 60), parts=parts, seed=11)

    first, second = run(), run()
    assert (first.checks, first.one_run) == (second.checks, second.one_run)
    assert first.failed == ()


def test_the_command_prints_one_json_document_and_its_exit_code_says_whether_a_check_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["audit", str(EXAMPLES / "heart-disease.toml"), "--rounds", "2", "--canaries", "40"]

    def run(*more: str) -> tuple[int, str, str]:
        code = run_command(app, name="cohortium-sim", arguments=[*words, *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, _ = run("--json")
    assert code == 0
    assert json.loads(out)["is_passed"] is True
    code, out, _ = run()
    assert code == 0
    assert "A lower bound above the promise proves a bug. A low one proves nothing" in out
    monkeypatch.setattr(noisy_optimizer, "NoisyOptimizer", planted_bugs.NoiseForAnotherNorm)
    code, out, _ = run("--json")
    assert code == AuditError.exit_code
    assert json.loads(out)["is_passed"] is False
    code, out, err = run()
    assert code == AuditError.exit_code
    assert "FAILED  noise-deviation" in out
    assert "noise-deviation" in err


@pytest.mark.slow
@pytest.mark.parametrize("example", ["heart-disease.toml", "stroke-outcome.toml"])
def test_the_example_plans_pass_the_whole_audit(example: str) -> None:
    plan = read_plan(Path(EXAMPLES / example))
    report = run_audit(plan, ShadowSize(plan.training.rounds, 400, 1000))
    assert report.failed == ()
    assert 0 < report.one_run.epsilon_min <= report.epsilon
    assert math.isfinite(report.one_run.epsilon_min_possible)
