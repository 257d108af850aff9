"""One simulated study: its folder, its baselines, its report, and the words of its refusals."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.command_line import run_command
from common.errors import ConfigError, PlanError
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from server import cli as coordinator_cli
from simulations import cli as simulation_cli
from simulations.baselines import ALL_BASELINES, ALL_SITES, FEDERATED, train_baselines
from simulations.engine import EngineSettings, run_study
from simulations.exact_performance import Estimate
from simulations.forecast_population import simulated_population
from simulations.plain_rounds import Trainee, pool, train_plainly
from simulations.randomness import reproducible
from simulations.run import StudyRun, open_run, run
from simulations.run_folder import MARK
from simulations.run_report import conclusion
from simulations.virtual_site import VirtualSite
from tests.lib.html_pages import Page
from tests.lib.plans import make_plan, write_plan

ONE_PROCESS = EngineSettings(workers=1)
PLANS = {
    "fedavg": make_plan(),
    "scaled, momentum, several rows": make_plan(
        scaling={"kind": "dp_mean_variance"},
        training__optimizer={"kind": "sgd", "learning_rate": 0.1, "momentum": 0.5},
        training__proximal_term=0.1,
        privacy__rows_per_patient_max=2,
    ),
    "mlp, adam, fedadam, average": make_plan(
        model={"kind": "mlp", "hidden": [4]},
        training__strategy={"kind": "fedadam", "server_learning_rate": 0.1},
        training__optimizer={"kind": "adam", "learning_rate": 0.01},
        training__model_average_decay=0.5,
    ),
    "median": make_plan(
        training__aggregation={"kind": "median", "dishonest_sites": 1}, training__quorum=3
    ),
    "norm bound": make_plan(training__aggregation={"kind": "norm_bound", "norm_max": 0.05}),
}


def population(plan: StudyPlan, sites: int = 3, patients: int = 200) -> Sequence[VirtualSite]:
    return simulated_population(plan, sites=sites, patients=patients)(1)


def trainees(plan: StudyPlan, sites: Sequence[VirtualSite]) -> list[Trainee]:
    return [Trainee(s.site_id, s.declared_cohort_size, s.matrix(plan)) for s in sites]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    plan = PLANS["fedavg"]
    folder = tmp_path_factory.mktemp("runs") / "one"
    return run(plan, population(plan), folder=folder, settings=ONE_PROCESS)


@pytest.mark.parametrize("name", PLANS)
def test_rounds_without_coordinator_make_the_studys_own_model_to_the_bit(name: str) -> None:
    plan = PLANS[name]
    sites = population(plan)
    study = run_study(plan, sites, seed=7, settings=ONE_PROCESS)
    plain = train_plainly(plan, trainees(plan, sites)[::-1], randomness=reproducible(7))
    assert plain.keys() == study.parameters.keys()
    for key, array in study.parameters.items():
        np.testing.assert_array_equal(plain[key], array)


def test_a_pool_keeps_every_patient_in_the_part_of_the_own_site() -> None:
    plan = PLANS["scaled, momentum, several rows"]
    sites = trainees(plan, population(plan))
    whole = pool("pool", sites)
    assert whole.declared_cohort_size == sum(site.declared_cohort_size for site in sites)
    assert whole.patients.part.tolist() == [n for s in sites for n in s.patients.part.tolist()]
    assert whole.patients.weight is not None


def test_without_noise_one_full_step_pooled_is_the_federation_and_alone_is_not() -> None:
    # Full batches and one step a round: the weighted mean of the sites' gradients is the pool's.
    plan = make_plan(training__sampling_probability=1.0, training__local_steps=1)
    sites = trainees(plan, population(plan))
    plain = {"randomness": reproducible(1), "has_noise": False}
    federated, pooled, alone = (
        train_plainly(plan, who, **plain)["linear.weight"]  # type: ignore[arg-type]
        for who in (sites, [pool("pool", sites)], sites[:1])
    )
    np.testing.assert_allclose(federated, pooled, atol=1e-6)
    assert np.abs(federated - alone).max() > 1e-3


def test_each_baseline_scores_the_same_patients_at_each_site(ran: StudyRun) -> None:
    table = ran.baselines[ran.baselines.site_id != ALL_SITES]
    assert set(table.baseline) == {FEDERATED, *ALL_BASELINES}
    for _, rows in table.groupby("site_id"):
        assert len(rows) == 1 + len(ALL_BASELINES)
        assert rows.patients.nunique() == rows.events.nunique() == 1


def test_leaving_out_takes_no_more_sites_than_said_from_small_to_large() -> None:
    plan = PLANS["fedavg"]
    sites = [
        Trainee(item.site_id, 100 * place, item.patients)
        for place, item in enumerate(trainees(plan, population(plan, sites=7, patients=60)), 1)
    ]
    model = train_plainly(plan, sites, randomness=reproducible(1))
    found = train_baselines(
        plan, sites, model, names=("leave_one_site_out",), seed=1, left_out_max=3
    ).table
    left_out = found[(found.baseline == "leave_one_site_out") & (found.site_id != ALL_SITES)]
    assert list(left_out.site_id) == ["hospital-1", "hospital-4", "hospital-7"]


def test_the_means_of_all_sites_are_the_means_of_their_rows(ran: StudyRun) -> None:
    for _, rows in ran.baselines.groupby("baseline"):
        whole, own = rows[rows.site_id == ALL_SITES].iloc[0], rows[rows.site_id != ALL_SITES]
        assert whole.auroc == pytest.approx(own.auroc.mean())
        if own.federated_minus.notna().any():
            assert whole.federated_minus == pytest.approx(own.federated_minus.mean())


def test_the_table_of_rounds_tells_outcome_privacy_and_bytes(ran: StudyRun) -> None:
    rounds = ran.rounds
    assert len(rounds) == 3 * (ran.plan.training.rounds + 1)
    assert set(rounds.outcome) == {"accepted"}
    assert (rounds.bytes_up > 1000).all() and (rounds.bytes_down > 1000).all()
    spent = rounds[rounds.site_id == "hospital-1"].epsilon_spent.to_numpy()
    assert (np.diff(spent) >= 0).all() and spent[-1] <= ran.plan.privacy.epsilon
    assert rounds[rounds.phase == "final evaluation"].noisy_auroc.notna().all()


def test_the_sites_figures_are_the_engines_own(ran: StudyRun) -> None:
    outcomes = {str(item.site_id): item for item in ran.result.sites}
    for _, row in ran.sites.iterrows():
        outcome = outcomes[row.site_id]
        assert row.auroc == pytest.approx(outcome.auroc)
        assert row.accuracy == pytest.approx(outcome.accuracy)
        assert row["patients[sex=female]"] + row["patients[sex=male]"] <= row.patients_held_out


def test_a_run_is_read_back_as_it_was_written(ran: StudyRun) -> None:
    again = open_run(ran.folder)
    assert (again.plan, again.seed) == (ran.plan, ran.seed)
    assert again.result.version == ran.result.version
    assert again.result.sites == ran.result.sites and again.result.rounds == ran.result.rounds
    for name in ("rounds", "sites", "baselines", "groups", "calibration"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(ran, name))
        records = json.loads((ran.folder / f"{name}.json").read_text())
        assert len(records) == len(getattr(ran, name))
    for key, array in ran.result.parameters.items():
        np.testing.assert_array_equal(again.result.parameters[key], array)


def test_the_folder_says_what_made_it_and_its_owner_alone_can_read_it(ran: StudyRun) -> None:
    record = json.loads((ran.folder / "run.json").read_text())
    assert record["seed"] == 1 and set(record["software"]) >= {"python", "torch", "cohortium"}
    assert read_plan(ran.folder / "plan.toml") == ran.plan
    assert "not differentially private" in (ran.folder / MARK).read_text()
    assert not (ran.folder / "work").exists()
    for path in (ran.folder, *ran.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_last_round_of_the_learning_curve_is_the_final_model(ran: StudyRun) -> None:
    assert list(ran.learning["round"]) == list(range(1, ran.plan.training.rounds + 1))
    last = ran.learning.iloc[-1]
    whole = ran.baselines[
        (ran.baselines.site_id == ALL_SITES) & (ran.baselines.baseline == FEDERATED)
    ].iloc[0]
    for name in ("auroc", "auroc_low", "brier", "calibration_slope"):
        assert last[name] == pytest.approx(whole[name], rel=1e-12)


def test_a_run_that_has_ended_is_not_taken_for_one_with_other_baselines(ran: StudyRun) -> None:
    with pytest.raises(ConfigError, match="ended with other baselines"):
        run(ran.plan, population(ran.plan), folder=ran.folder, baselines=("alone",), resume=True)


def test_every_figure_is_there_twice_and_drawn_alike_again(ran: StudyRun) -> None:
    from simulations.figures import draw_run

    files = {path.name: path.read_bytes() for path in (ran.folder / "figures").iterdir()}
    names = {"bought", "sites", "groups", "calibration", "participation", "communication",
             "learning"}  # fmt: skip
    assert set(files) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert draw_run(open_run(ran.folder)) == files


def test_the_report_warns_concludes_and_loads_nothing(ran: StudyRun) -> None:
    text = (ran.folder / "report.html").read_text()
    page = Page(text)
    assert "A real study could not show this" in page.text
    assert "not differentially private releases" in page.text
    assert "What a reader may conclude" in page.text
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags and "link" not in tags
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes["alt"] and attributes["src"].startswith("data:image/svg+xml;base64,")
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert len(page.tables["Sites, with the final model"]) == 1 + 3
    assert len(page.tables["The federation beside its baselines"]) == 2 + len(ALL_BASELINES)
    markdown = (ran.folder / "report.md").read_text()
    assert "A real study could not show this" in markdown
    for words in ("alone", "one place", "without noise"):
        assert words in markdown


@pytest.mark.parametrize("baseline", ALL_BASELINES)
def test_a_conclusion_is_drawn_only_where_the_interval_leaves_zero_out(baseline: str) -> None:
    unsure = conclusion(baseline, Estimate(0.02, -0.01, 0.05))
    better = conclusion(baseline, Estimate(0.02, 0.01, 0.03))
    worse = conclusion(baseline, Estimate(-0.02, -0.03, -0.01))
    assert "cannot tell" in unsure and "cannot tell" not in better + worse
    assert better != worse and "0.020" in better and "0.020" in worse


def test_a_plans_words_stay_text_in_the_report(tmp_path: Path) -> None:
    plan = make_plan(
        study__title="<script>alert(1)</script> | *x*",
        training__rounds=1,
        evaluation__releases=1,
    )
    found = run(
        plan, population(plan, 2, 60), folder=tmp_path / "r", baselines=(), settings=ONE_PROCESS
    )
    assert "script" not in [
        tag for tag, _ in Page((found.folder / "report.html").read_text()).elements
    ]
    assert "<script>" not in (found.folder / "report.md").read_text()
    assert "No baselines were trained" in (found.folder / "report.md").read_text()


def test_a_folder_of_another_run_is_never_overwritten(ran: StudyRun) -> None:
    plan = ran.plan
    before = (ran.folder / "run.json").read_bytes()
    with pytest.raises(ConfigError, match="holds another run") as refused:
        run(plan, population(plan), folder=ran.folder, seed=2, resume=True)
    assert "seed" in refused.value.arrived
    with pytest.raises(ConfigError, match="holds another run"):
        run(plan, population(plan, patients=210), folder=ran.folder)
    with pytest.raises(ConfigError, match="holds this run already"):
        run(plan, population(plan), folder=ran.folder)
    assert (ran.folder / "run.json").read_bytes() == before
    (ran.folder / "work").mkdir()  # as a kill after the last file leaves it, with features in it
    again = run(plan, population(plan), folder=ran.folder, resume=True)
    assert not (ran.folder / "work").exists()
    assert again.result.version == ran.result.version


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no run's folder"):
        run(PLANS["fedavg"], population(PLANS["fedavg"]), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("stage", ["rounds", "baselines"])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    ran: StudyRun, tmp_path: Path, stage: str
) -> None:
    plan, folder = ran.plan, tmp_path / "again"

    def interrupt(what: str, done: int, total: int) -> None:
        if what == stage and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, population(plan), folder=folder, settings=ONE_PROCESS, progress=interrupt)
    with pytest.raises(ConfigError, match="has not ended"):
        open_run(folder)
    again = run(plan, population(plan), folder=folder, settings=ONE_PROCESS, resume=True)
    assert again.result.version == ran.result.version
    pd.testing.assert_frame_equal(again.baselines, ran.baselines)
    pd.testing.assert_frame_equal(again.sites, ran.sites)
    columns = ["round", "site_id", "outcome", "epsilon_spent", "noisy_auroc"]
    pd.testing.assert_frame_equal(again.rounds[columns], ran.rounds[columns])
    assert (again.rounds.bytes_up > 1000).all()


def test_what_cannot_be_run_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    selects = make_plan(
        monitoring=..., selection={"keep": 2, "present_share_min": 0.01, "joint_candidates": 3}
    )
    with pytest.raises(PlanError, match="only selects"):
        run(selects, [], folder=tmp_path / "r")
    with pytest.raises(ConfigError, match="a baseline is refused"):
        run(PLANS["fedavg"], [], folder=tmp_path / "r", baselines=("best",))
    with pytest.raises(ConfigError, match="cannot be run on these sites"):
        run(PLANS["fedavg"], [], folder=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def _printed(app: Any, name: str, words: list[str], capfd: Any) -> tuple[int, str, str]:
    code = run_command(app, name=name, arguments=words)
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["words", "json"])
def test_a_plan_is_refused_in_the_words_of_plan_check(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], form: list[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["x", *form])
    plan = tmp_path / "plan.toml"
    write_plan(plan, PLANS["fedavg"])
    text = plan.read_text()
    plan.write_text(
        text.replace("quorum = 2", "quorum = 1").replace("delta = 0.0001", "delta = 0.9")
    )
    checked = _printed(
        coordinator_cli.app, "cohortium-coordinator", ["plan", "check", str(plan), *form], capfd
    )
    refused = _printed(simulation_cli.app, "cohortium-sim", ["run", str(plan), *form], capfd)
    assert refused == checked
    assert checked[0] == PlanError.exit_code
    assert "quorum" in checked[1] + checked[2]


def test_the_command_runs_a_study_and_prints_one_json_document(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.toml"
    write_plan(plan, PLANS["fedavg"])
    words = ["run", str(plan), "--sites", "2", "--patients", "100", "--workers", "1"]
    words += ["--baselines", "alone,pooled", "--out", str(tmp_path / "r"), "--json"]
    code, out, err = _printed(simulation_cli.app, "cohortium-sim", words, capfd)
    assert code == 0, err
    record = json.loads(out)
    assert len(record["sites"]) == 2
    assert {row["baseline"] for row in record["baselines"]} == {"federated", "alone", "pooled"}
    code, out, _ = _printed(simulation_cli.app, "cohortium-sim", words, capfd)
    assert (code, json.loads(out)["error"]) == (ConfigError.exit_code, "ConfigError")
    shutil.rmtree(tmp_path / "r")
