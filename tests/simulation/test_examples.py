"""The worked examples reproduce the numbers that their page states."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common.study.plan_file import read_plan
from tests.lib.data_sets import data_set

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "simulations"
PAGE = EXAMPLES.parents[1] / "simulating-a-study.md"
# The same seed draws the same split, sampling and noise; processors differ in the last bits of a
# sum, which a ranking of some thousand patients hardly notices.
TOLERANCE = 0.002
RESULTS = ("heart-hospitals", "icu-regions", "stroke-countries", "stroke-hospitals")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stated(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((EXAMPLES / "results" / f"{name}.json").read_text())
    return rows


def epsilon_of(row: dict[str, Any]) -> float:
    return math.inf if row["privacy.epsilon"] == "infinity" else float(row["privacy.epsilon"])


def check(name: str, found: Any) -> None:
    expected = {(epsilon_of(row), row["seed"]): row for row in stated(name)}
    made = found.by_seed.to_dict(orient="records")
    assert made
    for row in made:
        told = expected[row["privacy.epsilon"], row["seed"]]
        assert row["patients"] == told["patients"]
        for figure in ("auroc", "auroc_of_sites", "brier"):
            assert row[figure] == pytest.approx(told[figure], abs=TOLERANCE)


@pytest.mark.slow
def test_heart_disease_in_four_hospitals_gives_its_table(tmp_path: Path) -> None:
    data_set("heart_uci")
    found = example("heart_hospitals").compare(
        tmp_path, epsilons=(1.0, math.inf), seeds=(1, 2), workers=1, baselines=()
    )
    check("heart-hospitals", found)


@pytest.mark.slow
def test_death_in_intensive_care_by_region_gives_its_table(tmp_path: Path) -> None:
    data_set("eicu_demo")
    found = example("icu_regions").compare(
        tmp_path, epsilons=(1.0, math.inf), seeds=(1, 2), workers=1, baselines=()
    )
    check("icu-regions", found)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["countries", "hospitals"])
def test_stroke_in_countries_and_hospitals_gives_its_table(tmp_path: Path, unit: str) -> None:
    data_set("stroke_ist")
    found = example("stroke_trial").compare(
        unit, tmp_path, epsilons=(3.0,), seeds=(1,), workers=1, baselines=()
    )
    check(f"stroke-{unit}", found)


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_states_the_means_of_the_kept_results(name: str) -> None:
    by_epsilon: dict[float, list[float]] = {}
    for row in stated(name):
        by_epsilon.setdefault(epsilon_of(row), []).append(row["auroc"])
    line = next(line for line in PAGE.read_text().splitlines() if f"results/{name}.json" in line)
    for epsilon, found in by_epsilon.items():
        words = "∞" if math.isinf(epsilon) else f"{epsilon:g}"
        assert f"{words}: {sum(found) / len(found):.3f}" in line, epsilon


def test_the_plan_of_the_example_meets_every_rule() -> None:
    assert read_plan(EXAMPLES / "icu-death.toml").study.id == "icu-death"
