"""Beside each cell of a sweep stand the baselines of a run, each trained once and kept."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.command_line import run_command
from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations import cli
from simulations.baselines import ALL_BASELINES, ALL_SITES, FEDERATED
from simulations.engine import EngineSettings
from simulations.forecast_population import simulated_population
from simulations.run import run
from simulations.sweep import Sweep, sweep
from simulations.sweep_report import write_sweep
from tests.lib.html_pages import Page
from tests.lib.plans import make_plan, write_plan

FIGURES = ("patients", "events", "auroc", "accuracy", "brier", "calibration_slope")
EPSILONS = (0.2, 4.0, math.inf)
PLAN = make_plan(
    training__rounds=2,
    training__local_steps=1,
    evaluation__releases=1,
    training__optimizer={"kind": "sgd", "learning_rate": 2.0},
)
SITES = simulated_population(PLAN, sites=3, patients=80)


def swept(
    folder: Path,
    epsilons: Sequence[float] = EPSILONS,
    seeds: Sequence[int] = (1, 2),
    **options: Any,
) -> Sweep:
    vary = {"privacy.epsilon": epsilons}
    chosen = {"workers": 1, "left_out_max": 2, **options}
    return sweep(PLAN, SITES, vary=vary, seeds=seeds, folder=folder, **chosen)


def kept(folder: Path) -> dict[Path, dict[str, Any]]:
    return {path: json.loads(path.read_text()) for path in (folder / "baselines").glob("*.json")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return swept(tmp_path_factory.mktemp("sweep"))


def one(table: pd.DataFrame, epsilon: float, seed: int) -> pd.DataFrame:
    rows = table[(table["privacy.epsilon"] == epsilon) & (table.seed == seed)]
    return rows.set_index(["baseline", "site_id"])


@pytest.mark.parametrize("place", [0, 1])
def test_a_cells_baselines_are_those_of_a_run_of_its_plan_and_seed(
    small: Sweep, tmp_path: Path, place: int
) -> None:
    cell = small.cells[place]
    assert cell.norm_bound_raised == (place == 0)
    alone = run(
        cell.plan,
        SITES(2),
        seed=2,
        folder=tmp_path / "run",
        left_out_max=2,
        settings=EngineSettings(workers=1),
    )
    expected = alone.baselines.set_index(["baseline", "site_id"])
    found = one(small.baselines, cell.epsilon, 2)
    assert list(found.index) == list(expected.index)
    for figure in (*FIGURES, "federated_minus"):
        a, b = found[figure].astype(float), expected[figure].astype(float)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=figure)


def test_without_noise_the_cell_is_its_own_baseline_and_the_private_ones_are_the_others(
    small: Sweep,
) -> None:
    rows = small.baselines[small.baselines["privacy.epsilon"] == math.inf]
    same = rows[rows.baseline == "federated_no_noise"]
    assert (same.federated_minus.abs() < 1e-12).all()
    for private, other in (("alone_private", "alone"), ("pooled_private", "pooled")):
        a, b = (rows[rows.baseline == name][list(FIGURES)] for name in (private, other))
        np.testing.assert_array_equal(a.astype(float), b.astype(float))


def test_what_has_no_noise_is_trained_once_for_all_epsilons(small: Sweep) -> None:
    counts = Counter(record["baseline"] for record in kept(small.folder).values())
    seeds, private_cells = 2, 2
    assert counts == {
        "alone": seeds,
        "pooled": seeds,
        "federated_no_noise": seeds,
        "alone_private": seeds * private_cells,
        "pooled_private": seeds * private_cells,
        "leave_one_site_out": seeds * (private_cells + 1),  # that without noise is another
    }


def test_another_clipping_norm_has_baselines_without_noise_of_its_own(tmp_path: Path) -> None:
    found = sweep(
        PLAN,
        SITES,
        vary={"privacy.clipping_norm": [0.01, 1.0]},
        seeds=[1],
        folder=tmp_path,
        workers=1,
        baselines=["alone"],
    )
    first, second = found.bought[found.bought.baseline == "alone"].brier
    assert first != second


def test_every_cell_has_every_baseline_and_leaves_out_no_more_sites_than_said(
    small: Sweep,
) -> None:
    for _, rows in small.baselines.groupby(["privacy.epsilon", "seed"]):
        counts = rows[rows.site_id != ALL_SITES].baseline.value_counts().to_dict()
        assert counts == dict.fromkeys((FEDERATED, *ALL_BASELINES), 3) | {"leave_one_site_out": 2}


def test_what_federation_bought_is_the_mean_of_differences_of_the_same_seed(small: Sweep) -> None:
    by_hand = [
        one(small.baselines, 4.0, seed).loc[(FEDERATED, ALL_SITES), "auroc"]
        - one(small.baselines, 4.0, seed).loc[("alone", ALL_SITES), "auroc"]
        for seed in (1, 2)
    ]
    table = small.bought
    row = table[(table["privacy.epsilon"] == 4.0) & (table.baseline == "alone")].iloc[0]
    assert row.federated_minus == pytest.approx(np.mean(by_hand), abs=1e-12)
    # The quantile of Student's t with one degree of freedom, from a printed table.
    half = 12.7062 * np.std(by_hand, ddof=1) / math.sqrt(2)
    assert row.federated_minus_high - row.federated_minus == pytest.approx(half, rel=1e-5)
    summary = small.summary.set_index("privacy.epsilon")
    assert summary.loc[4.0, "auroc_alone"] == row.auroc
    assert summary.loc[4.0, "auroc_of_sites"] == pytest.approx(
        small.by_seed[small.by_seed["privacy.epsilon"] == 4.0].auroc_of_sites.mean()
    )


class KilledError(Exception):
    pass


def test_a_sweep_that_stopped_trains_no_baseline_twice_and_ends_at_the_same_tables(
    small: Sweep, tmp_path: Path
) -> None:
    def kill(done: int, found: int, total: int) -> None:
        if done == 12:  # the six runs, of both seeds, and six baselines
            raise KilledError

    with pytest.raises(KilledError):
        swept(tmp_path, progress=kill)
    before = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}
    assert len(before) == 6
    told: list[tuple[int, int, int]] = []
    again = swept(tmp_path, progress=lambda *counts: told.append(counts))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    everything = 6 + len(kept(tmp_path))
    assert told[-1] == (everything, 12, everything)
    assert again.baselines.equals(small.baselines)
    assert again.bought.equals(small.bought)


def test_further_baselines_and_epsilons_train_only_what_is_missing(tmp_path: Path) -> None:
    swept(tmp_path, [4.0], [1], baselines=["alone"])
    found = swept(tmp_path, [4.0, 8.0], [1], baselines=["alone", "pooled"])
    assert Counter(record["baseline"] for record in kept(tmp_path).values()) == {
        "alone": 1,
        "pooled": 1,
    }
    assert set(found.baselines.baseline) == {FEDERATED, "alone", "pooled"}


def test_other_patients_have_other_baselines(tmp_path: Path) -> None:
    swept(tmp_path, [4.0], [1], baselines=["alone"])
    sweep(
        PLAN,
        lambda seed: SITES(seed + 100),
        vary={"privacy.epsilon": [4.0]},
        seeds=[1],
        folder=tmp_path,
        workers=1,
        baselines=["alone"],
    )
    assert len(kept(tmp_path)) == 2


def test_an_unknown_baseline_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a baseline is refused"):
        swept(tmp_path / "out", baselines=["best"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_processes_train_the_baselines_that_one_process_trains(
    small: Sweep, tmp_path: Path
) -> None:
    found = swept(tmp_path, workers=2)
    assert found.baselines.equals(small.baselines)


def test_the_report_has_a_row_for_each_cell_and_a_column_for_each_baseline(small: Sweep) -> None:
    page = Page((write_sweep(small, words="three invented hospitals")).read_text())
    tables = {caption: rows for caption, rows in page.tables.items() if "AUROC" in caption}
    assert len(tables) == 2
    for caption, rows in tables.items():
        of_federation = "minus" not in caption
        assert len(rows) == 1 + len(EPSILONS)
        assert {len(row) for row in rows} == {1 + of_federation + len(ALL_BASELINES)}
    markdown = (small.folder / "report.md").read_text()
    assert "## What federation bought" in markdown
    assert "figures/bought.svg" in markdown
    assert "Not every site was left out" in markdown
    for name in ("baselines", "bought"):
        table = pd.read_parquet(small.folder / "tables" / f"{name}.parquet")
        rows = json.loads((small.folder / "tables" / f"{name}.json").read_text())
        assert len(table) == len(rows) == len(getattr(small, name))
    record = json.loads((small.folder / "sweep.json").read_text())
    assert len(record["baselines"]) == len(EPSILONS) * (1 + len(ALL_BASELINES))


def test_without_baselines_the_report_says_what_it_cannot_say(tmp_path: Path) -> None:
    found = swept(tmp_path, [4.0], [1], baselines=())
    write_sweep(found, words="three invented hospitals")
    assert "No baselines were trained" in (tmp_path / "report.md").read_text()
    assert set(found.baselines.baseline) == {FEDERATED}
    assert not (tmp_path / "figures" / "bought.svg").exists()


def command(plan: StudyPlan, folder: Path, *more: str) -> int:
    write_plan(folder / "plan.toml", plan)
    size = ["--sites", "2", "--patients", "80", "--workers", "1", "--seeds", "1"]
    words = ["sweep", str(folder / "plan.toml"), "--vary", "privacy.epsilon=1,4", *size]
    arguments = [*words, "--out", str(folder / "out"), *more]
    return run_command(cli.app, name="cohortium-sim", arguments=arguments)


def test_the_command_takes_the_options_of_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--baselines", "pooled,leave_one_site_out", "--left-out-max", "1"]
    assert command(PLAN, tmp_path, *chosen, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    rows = [(row["privacy.epsilon"], row["baseline"], row["sites"]) for row in told["baselines"]]
    assert rows == [
        (epsilon, name, sites)
        for epsilon in (1, 4)
        for name, sites in ((FEDERATED, 2), ("pooled", 2), ("leave_one_site_out", 1))
    ]
    assert command(PLAN, tmp_path, *chosen) == 0
    assert "minus that of each baseline" in " ".join(capsys.readouterr().out.split())
    assert command(PLAN, tmp_path, "--no-baselines", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["baseline"] for row in told["baselines"]} == {FEDERATED}
    assert command(PLAN, tmp_path, "--baselines", "best") == 11
