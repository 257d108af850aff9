"""Aggregations compared: the robust ones hold a liar whom the weighted mean believes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.errors import ConfigError
from common.study.aggregation_rules import quorum_needed
from common.study.plan_file import read_plan
from simulations.scenarios.compare_aggregation import (
    LIES,
    MEASURES,
    ComparisonSize,
    aggregations_of,
    compare_aggregation,
    comparison_figure,
    measure_text,
    summary_of,
)
from tests.lib.plans import EXAMPLES

PLAN = read_plan(EXAMPLES / "heart-disease.toml")


@pytest.mark.slow
def test_robust_aggregation_holds_a_liar_whom_the_weighted_mean_believes() -> None:
    size = ComparisonSize(large=4, small=1, tested=300, seeds=1)
    lies = {lie: LIES[lie] for lie in ("honest", "sign flip")}
    table = compare_aggregation(PLAN, size, lies=lies)
    summary = summary_of(table).set_index(["aggregation", "lie"])
    auroc = summary["AUROC"]
    assert auroc["weighted mean", "sign flip"] < auroc["weighted mean", "honest"] - 0.1
    for name in ("trimmed mean", "median", "multi-Krum", "norm bound"):
        assert auroc[name, "sign flip"] > auroc["weighted mean", "sign flip"]
    assert auroc["multi-Krum", "sign flip"] > auroc["multi-Krum", "honest"] - 0.05


def test_every_aggregation_compared_tolerates_a_liar_with_the_quorum_that_it_gets() -> None:
    for sites in (5, 8, 20):
        for spec in aggregations_of(sites).values():
            assert quorum_needed(spec) <= sites


def test_too_few_hospitals_are_refused() -> None:
    with pytest.raises(ConfigError):
        compare_aggregation(PLAN, ComparisonSize(large=2, small=1))


def test_the_summary_has_students_interval_and_the_figure_every_cell(tmp_path: Path) -> None:
    rows = [
        {"aggregation": name, "lie": lie, "seed": seed} | dict.fromkeys(MEASURES, 0.5 + seed / 100)
        for name in aggregations_of(8)
        for lie in LIES
        for seed in (1, 2, 3)
    ]
    summary = summary_of(pd.DataFrame(rows))
    assert len(summary) == 25
    assert np.allclose(summary["AUROC"], 0.52)
    # t(0.975, 2) = 4.3027 and a standard error of 0.01 / sqrt(3).
    assert np.allclose(summary["AUROC ±"], 4.302653 * 0.01 / math.sqrt(3))
    path = tmp_path / "figure.png"
    comparison_figure(summary).savefig(path)
    assert path.stat().st_size > 10_000
    assert measure_text(summary, "AUROC").count("0.520 ± 0.025") == 25


def test_one_seed_has_no_interval_and_says_none() -> None:
    cell = {"aggregation": "median", "lie": "honest", "seed": 1}
    summary = summary_of(pd.DataFrame([cell | dict.fromkeys(MEASURES, 0.7)]))
    assert measure_text(summary, "AUROC").splitlines()[-1] == "| median | 0.700 |"
    assert "NaN" not in str(summary.to_json())
