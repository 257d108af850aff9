"""A sweep runs every combination once, keeps what it ran, and says who pays for privacy."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import numpy as np
import pandas
import pytest

from common.errors import ConfigError, ServiceError
from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems
from simulations.run_folder import MARK, MARK_TEXT
from simulations.seed_interval import interval
from simulations.sweep import EarlyStop, Sweep, sweep
from simulations.sweep_report import write_sweep
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from tests.lib.plans import make_plan

ROUNDS = 3


def plan() -> StudyPlan:
    return make_plan(
        training__rounds=ROUNDS,
        training__local_steps=1,
        training__sampling_probability=1.0,
        training__optimizer={"kind": "sgd", "learning_rate": 4.0},
        evaluation__releases=1,
    )


def sites(seed: int) -> list[VirtualSite]:
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan())
    found: list[VirtualSite] = []
    for name, patients in (("east", 300), ("north", 120)):
        x = rng.uniform(-1, 1, (patients, len(columns))).astype(np.float32)
        female = rng.random(patients) < 0.5
        x[:, columns.index("sex=female")] = female
        x[:, columns.index("sex=male")] = ~female
        y = (rng.random(patients) < 1 / (1 + np.exp(-4 * x[:, 0]))).astype(np.float32)
        matrix = FeatureMatrix(columns, x, y, rng.integers(0, 10**6, patients))
        found.append(VirtualSite(name, patients, matrix))
    return found


def run(folder: Path, epsilons: tuple[float, ...], seeds: tuple[int, ...] = (1, 2)) -> Sweep:
    return sweep(
        plan(),
        sites,
        vary={"privacy.epsilon": epsilons},
        seeds=seeds,
        folder=folder,
        workers=1,
        baselines=(),
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return run(tmp_path_factory.mktemp("sweep"), (0.2, 4.0, math.inf), (1, 2, 3))


def test_every_combination_is_run_with_every_seed(small: Sweep) -> None:
    assert len(small.table) == 3 * 3 * 2  # cells, seeds, sites
    assert small.summary["privacy.epsilon"].tolist() == [0.2, 4.0, math.inf]
    assert (small.summary["seeds"] == 3).all()
    assert (small.summary["auroc_low"] < small.summary["auroc"]).all()


def test_less_privacy_reaches_more(small: Sweep) -> None:
    first, _, last = small.summary["auroc"]
    assert first < last - 0.02


def test_infinite_epsilon_promises_nothing_and_the_others_spend_no_more_than_promised(
    small: Sweep,
) -> None:
    spent = small.summary["epsilon_spent"].tolist()
    assert spent[0] <= 0.2
    assert spent[1] <= 4.0
    assert math.isnan(spent[2])


def test_the_cost_of_privacy_is_the_loss_against_no_noise_seed_by_seed(small: Sweep) -> None:
    cost = small.cost
    assert set(cost["scope"]) == {"all", "site", "group"}
    assert set(cost[cost["scope"] == "group"]["name"]) == {"sex=female", "sex=male"}
    assert (cost["reference_epsilon"] == math.inf).all()
    table = small.table
    east = table[table["site_id"] == "east"].set_index(["privacy.epsilon", "seed"])["auroc"]
    by_hand = [east[math.inf, seed] - east[0.2, seed] for seed in (1, 2, 3)]
    row = cost[(cost["privacy.epsilon"] == 0.2) & (cost["name"] == "east")].iloc[0]
    assert row["cost"] == pytest.approx(np.mean(by_hand))
    assert row["cost_high"] - row["cost"] == pytest.approx(
        4.302653 * np.std(by_hand, ddof=1) / math.sqrt(3), rel=1e-5
    )  # the quantile of Student's t with two degrees of freedom, from a printed table


def test_traffic_is_counted_in_both_directions_of_every_round(small: Sweep) -> None:
    traffic = small.communication
    assert len(traffic) == 3 * (ROUNDS + 1)  # the final evaluation is an exchange, too
    assert (traffic["bytes_down"] > 0).all()
    assert (traffic["bytes_up"] > 0).all()
    assert (traffic["accepted"] == 2).all()
    assert (small.participation["accepted"] == 1.0).all()


def test_a_run_that_was_made_is_not_made_again(tmp_path: Path) -> None:
    first = run(tmp_path, (4.0,))
    kept = sorted((tmp_path / "runs").iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    seen: list[tuple[int, int, int]] = []
    again = sweep(
        plan(),
        sites,
        vary={"privacy.epsilon": [4.0, 8.0]},
        seeds=(1, 2),
        folder=tmp_path,
        workers=1,
        baselines=(),
        progress=lambda *counts: seen.append(counts),
    )
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert seen[-1] == (4, 2, 4)  # done, read back, all
    assert again.runs[0].record == first.runs[0].record


def test_a_sweep_that_stopped_goes_on_to_the_same_tables(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, found: int, runs: int) -> None:
        if done == 3:
            raise KilledError

    arguments = {"vary": {"privacy.epsilon": [1.0, math.inf]}, "seeds": (1, 2), "workers": 1}
    arguments |= {"baselines": ()}
    with pytest.raises(KilledError):
        sweep(plan(), sites, folder=tmp_path / "a", progress=kill, **arguments)  # type: ignore[arg-type]
    resumed = sweep(plan(), sites, folder=tmp_path / "a", **arguments)  # type: ignore[arg-type]
    whole = sweep(plan(), sites, folder=tmp_path / "b", **arguments)  # type: ignore[arg-type]
    timed = ["cpu_seconds"]
    assert resumed.summary.drop(columns=timed).equals(whole.summary.drop(columns=timed))
    assert resumed.table.equals(whole.table)


@pytest.mark.parametrize("name", ["report.html", "run.json", "runs/thesis.txt"])
def test_a_folder_with_other_things_in_it_is_never_swept_into(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        sweep(plan(), sites, vary={"privacy.epsilon": [1.0]}, seeds=[1], folder=tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [Path(name).name]


def test_other_patients_are_another_run(tmp_path: Path) -> None:
    run(tmp_path, (4.0,), (1,))
    sweep(
        plan(),
        lambda seed: sites(seed + 100),
        vary={"privacy.epsilon": [4.0]},
        seeds=[1],
        folder=tmp_path,
        workers=1,
        baselines=(),
    )
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_a_cell_that_breaks_a_rule_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PlanProblems) as refused:
        sweep(
            plan(),
            sites,
            vary={"training.rounds": [2, 0], "privacy.delta": [1e-4, 0.5]},
            seeds=[1],
            folder=tmp_path,
        )
    told = [(problem.number, problem.path) for problem in refused.value.problems]
    assert ("P4", "training.rounds=0, privacy.delta=0.0001: training.rounds") in told
    assert any(path.startswith("training.rounds=2, privacy.delta=0.5") for _, path in told)
    assert not list(tmp_path.rglob("*.json"))


def test_a_cell_clearly_below_the_best_of_its_epsilon_gets_no_more_seeds(tmp_path: Path) -> None:
    # Where a network starts is no better than chance: one that hardly moves stays there.
    network = plan().model_dump(mode="json", exclude_none=True) | {
        "model": {"kind": "mlp", "hidden": [4]}
    }
    started = draft_of(network).plan
    assert started is not None
    told: list[tuple[int, int, int]] = []
    found = sweep(
        started,
        sites,
        vary={
            "privacy.epsilon": [0.5, math.inf],
            "training.optimizer.learning_rate": [1e-6, 4.0],
        },
        seeds=(1, 2, 3, 4, 5),
        folder=tmp_path,
        workers=1,
        baselines=["alone"],
        progress=lambda *counts: told.append(counts),
        stop=EarlyStop(seeds_min=4),
    )
    slow = "privacy.epsilon=∞, training.optimizer.learning_rate=1e-06"
    fast = "privacy.epsilon=∞, training.optimizer.learning_rate=4"
    assert found.stopped[slow] == 4
    assert fast not in found.stopped
    summary = found.summary.set_index(["privacy.epsilon", "training.optimizer.learning_rate"])
    assert summary.loc[(math.inf, 1e-6), "seeds"] == 4
    assert summary.loc[(math.inf, 4.0), "seeds"] == 5
    # What is not run has no baseline; the two epsilons share theirs.
    made = sum(len(list((tmp_path / kind).iterdir())) for kind in ("runs", "baselines"))
    assert len(found.trained) == len(found.runs) == summary["seeds"].sum()
    assert told[-1] == (made, 0, made)
    # Less noise is no reason to stop: one cell of each epsilon always goes on to the end.
    assert summary.groupby(level=0)["seeds"].max().tolist() == [5, 5]


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_there_and_different(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path, (1.0,), seeds)


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(interval([0.7]).low)
    assert interval([0.7, None]).seeds == 1


def test_a_kept_run_holds_no_number_that_json_does_not_know(small: Sweep) -> None:
    for path in (small.folder / "runs").glob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path: Path, small: Sweep) -> None:
    found = sweep(
        plan(),
        sites,
        vary={"privacy.epsilon": [0.2, 4.0, math.inf]},
        seeds=(1, 2, 3),
        folder=tmp_path,
        workers=2,
        baselines=(),
    )
    assert found.table.equals(small.table)


def test_what_is_written_holds_every_number_of_every_figure(small: Sweep) -> None:
    write_sweep(small, words="two invented hospitals")
    for report in ("report.md", "report.html"):
        text = (small.folder / report).read_text(encoding="utf-8")
        assert "two invented hospitals" in text
        assert "Who pays for privacy: each group" in text
    figures = {path.stem for path in (small.folder / "figures").glob("*.png")}
    assert figures == {path.stem for path in (small.folder / "figures").glob("*.svg")}
    assert figures == {"utility", "cost-by-site", "cost-by-group", "participation", "communication"}
    for name in figures:
        by_parquet = pandas.read_parquet(small.folder / "tables" / f"{name}.parquet")
        by_json = json.loads((small.folder / "tables" / f"{name}.json").read_text())
        assert len(by_parquet) == len(by_json) > 0
    record = json.loads((small.folder / "sweep.json").read_text())
    assert record["summary"][2]["privacy.epsilon"] == "infinity"


def test_exact_figures_are_for_their_owner_alone_and_say_so(small: Sweep) -> None:
    write_sweep(small, words="two invented hospitals")
    assert MARK_TEXT.split(".")[0] in (small.folder / MARK).read_text()
    for path in small.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_ready_features_are_not_taken_for_those_of_another_question(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be varied"):
        sweep(
            plan(),
            sites,
            vary={"features.age.clip": [[20, 90], [30, 80]]},
            seeds=[1],
            folder=tmp_path,
            workers=1,
        )


@pytest.mark.slow
def test_a_process_that_dies_is_told_in_words_and_what_was_made_is_kept(tmp_path: Path) -> None:
    def kill(done: int, found: int, runs: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(ServiceError, match="ended by itself"):
        sweep(
            plan(),
            sites,
            vary={"privacy.epsilon": [1.0, 2.0, 4.0]},
            seeds=[1, 2],
            folder=tmp_path,
            workers=2,
            baselines=(),
            progress=kill,
        )
    assert list((tmp_path / "runs").glob("*.json"))
    assert not multiprocessing.active_children()
