"""Calibration leaves next to nothing of epsilon, and a forecast is read, made or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from common.errors import ConfigError
from common.privacy.accountant import epsilon_of
from common.privacy.mechanism import DpSgdSteps
from common.study.plan_file import plan_digest, read_plan
from server.cli import app
from server.forecast_file import read_forecast
from server.plan_calibration import batch_lines, noise_lines
from tests.lib.plans import EXAMPLES, make_plan

HEART = EXAMPLES / "heart-disease.toml"
UNUSED_MAX = 0.005


@settings(max_examples=12, deadline=None)
@given(
    epsilon=st.floats(0.2, 8.0),
    rounds=st.integers(1, 60),
    steps=st.integers(1, 5),
    probability=st.sampled_from([0.05, 0.3, 1.0]),
)
def test_calibration_never_passes_epsilon_and_leaves_at_most_half_a_percent_of_it(
    epsilon: float, rounds: int, steps: int, probability: float
) -> None:
    plan = make_plan(
        privacy__epsilon=epsilon,
        monitoring=...,
        evaluation__releases=1,
        training__rounds=rounds,
        training__local_steps=steps,
        training__sampling_probability=probability,
        training__update_norm_max=1e9,
    )
    [own] = [line for line in noise_lines(plan, epsilons=()) if line.is_plans]
    record = DpSgdSteps(own.noise_multiplier, probability, rounds * steps)
    assert own.epsilon_spent == epsilon_of((record,), delta=plan.privacy.delta)
    assert 0 <= own.unused <= UNUSED_MAX


def test_less_epsilon_needs_more_noise_and_a_larger_cohort_drowns_less() -> None:
    plan = read_plan(HEART)
    noise = noise_lines(plan)
    assert [line.epsilon for line in noise] == [0.5, 1.0, 2.0, 3.0, 4.0, 8.0]
    multipliers = [line.noise_multiplier for line in noise]
    assert multipliers == sorted(multipliers, reverse=True)
    small, large = batch_lines(plan, 4.0, cohort_sizes=(100, 1000))
    assert small.batch == pytest.approx(0.5 * 100 * 0.75)
    assert small.noise_per_coordinate == pytest.approx(10 * large.noise_per_coordinate)


def _json(*words: str) -> dict[str, object]:
    answer = CliRunner().invoke(app, ["plan", "calibrate", str(HEART), "--json", *words])
    assert answer.exit_code == 0, answer.output
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def test_the_command_shows_noise_batches_and_a_given_forecast(tmp_path: Path) -> None:
    forecast = tmp_path / "forecast.json"
    record = {
        "forecast_version": 1,
        "plan_digest": plan_digest(read_plan(HEART)),
        "population": "invented for a test",
        "lines": [
            {"epsilon": "1", "auroc_mean": "0.75", "auroc_sd": "0.01", "seeds": 5},
            {"epsilon": "infinity", "auroc_mean": "0.8", "auroc_sd": "0.01", "seeds": 5},
        ],
    }
    forecast.write_text(json.dumps(record))
    found = _json("--forecast", str(forecast), "--cohort-size", "250")
    assert found["forecast"] == record
    assert [line["cohort_size"] for line in found["batches"]] == [250]  # type: ignore[index, union-attr]
    words = CliRunner().invoke(app, ["plan", "calibrate", str(HEART), "--forecast", str(forecast)])
    assert "∞, no noise" in words.output and "invented for a test" in words.output


def test_without_simulations_asked_for_there_is_no_forecast() -> None:
    assert _json("--no-simulate")["forecast"] is None


@pytest.mark.slow
def test_a_forecast_on_simulated_patients_falls_with_epsilon() -> None:
    found = _json("--sites", "3", "--patients", "150", "--seeds", "2")
    lines = found["forecast"]["lines"]  # type: ignore[index, call-overload]
    assert [line["epsilon"] for line in lines] == ["0.5", "1.0", "2.0", "4.0", "8.0", "infinity"]
    assert 0.5 < float(lines[-1]["auroc_mean"]) < 0.9


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"forecast_version": 2}'])
def test_a_file_that_is_no_forecast_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "forecast.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="refused"):
        read_forecast(path, make_plan())


def test_a_forecast_of_another_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "forecast.json"
    path.write_text(
        json.dumps(
            {"forecast_version": 1, "plan_digest": "ab" * 32, "population": "x", "lines": []}
        )
    )
    with pytest.raises(ConfigError) as caught:
        read_forecast(path, make_plan())
    assert caught.value.arrived == "a forecast of another plan"
