"""Run one simulated study and keep everything about it in one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.numpy

from common.errors import ConfigError
from common.ids import SiteId, parse_digest
from common.protocol.arrays import encode_parameters
from common.protocol.messages import LedgerStatement
from common.protocol.round_states import RoundState
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest, read_plan
from common.study.selection_words import check_trains
from server.round_book import Round
from simulations.baselines import ALL_BASELINES, LEFT_OUT_MAX, check_names, train_baselines
from simulations.engine import EngineSettings, run_study
from simulations.learning_curve import learning_table
from simulations.partition import Partition
from simulations.plain_rounds import Trainee
from simulations.run_folder import RunFolder
from simulations.run_tables import calibration_table, groups_table, rounds_table, sites_table
from simulations.study_result import FederationResult, SiteOutcome
from simulations.traffic import CountedChannel, read_traffic
from simulations.virtual_site import VirtualSite

__all__ = ["ALL_BASELINES", "StudyRun", "default_folder", "open_run", "run"]

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how much of it is done, how much there is)."""


@dataclass(frozen=True)
class StudyRun:
    """What one run gave.

    Args:
        folder: where everything about it lies.
        plan: that was run.
        seed: of sampling, noise and baselines.
        result: of the federation.
        rounds: one row for each round and site: outcome, epsilon, bytes, the noised evaluation.
        sites: one row for each site: exact figures of the final model on its held-out patients.
        baselines: one row for each baseline and site, and one for all sites together; see
            `simulations.baselines`.
        groups: one row for each level of a fairness group, over all sites.
        learning: one row for each training round: exact figures of the model that it made.
        calibration: predicted and observed risk in tenths of the held-out patients.
        record: `run.json`.
    """

    folder: Path
    plan: StudyPlan
    seed: int
    result: FederationResult
    rounds: pd.DataFrame
    sites: pd.DataFrame
    baselines: pd.DataFrame
    groups: pd.DataFrame
    calibration: pd.DataFrame
    learning: pd.DataFrame
    record: Mapping[str, Any] = field(repr=False)

    def _repr_html_(self) -> str:
        """Show the sites, and what federation bought, in a notebook."""
        tables = (self.sites, self.baselines[self.baselines.site_id == "all sites"])
        return "".join(str(table.to_html(index=False)) for table in tables if not table.empty)


def default_folder(plan: StudyPlan, seed: int) -> Path:
    """Return the folder of a run for which none is named."""
    return Path("runs") / f"{plan.study.id}-seed-{seed}"


def run(
    plan: Path | StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    folder: Path | None = None,
    seed: int = 1,
    settings: EngineSettings | None = None,
    baselines: Sequence[str] = ALL_BASELINES,
    left_out_max: int = LEFT_OUT_MAX,
    resume: bool = False,
    keep_work: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> StudyRun:
    """Run a plan on virtual sites, score it exactly, train baselines and write the folder.

    Args:
        plan: or its file.
        sites: such as a `Partition`.
        folder: not there yet, or this run's own to resume; `default_folder` when not given.
        seed: of sampling and noise.
        settings: how the sites are worked.
        baselines: which to train; none of them with ().
        left_out_max: sites left out in turn; of more, that many are chosen evenly by size.
        resume: go on with a run that was interrupted, or read one that has ended.
        keep_work: keep the engine's own files.
        progress: told what is being done.

    Raises:
        PlanError: the plan breaks a rule, or trains nothing.
        ConfigError: the folder holds another run, or this one with other baselines; unknown
            baselines; fewer sites than the quorum.
        DataSourceError: the data do not fit the plan.
        RoundFailed: too few sites answer.
    """
    plan = plan if isinstance(plan, StudyPlan) else read_plan(plan)
    check_trains(plan)
    check_names(baselines)
    _check_quorum(plan, len(sites))
    home = RunFolder(folder or default_folder(plan, seed))
    progress("reading patients", 0, len(sites))
    settings = settings or EngineSettings()
    about = {
        "settings": asdict(settings),
        "baselines": list(baselines),
        "divided": sites.words if isinstance(sites, Partition) else "as given",
        "left_out": list(sites.left_out) if isinstance(sites, Partition) else [],
    }
    # Features are made once: the study, the baselines and the fingerprints take the same.
    ready = [replace(site, patients=site.matrix(plan)) for site in sites]
    record = home.claim(plan, _identity(plan, ready, seed), resume=resume)
    if record["state"] == "finished":
        _check_same_baselines(home, record, baselines)
        if not keep_work:
            home.forget_work()  # a kill after the last file was written left it
        return open_run(home.path)
    study_run = _run_and_score(
        plan, ready, home, record | about, seed=seed, settings=settings,
        names=baselines, left_out_max=left_out_max, resume=resume, progress=progress,
    )  # fmt: skip
    progress("report", 0, 1)
    _write(study_run, home)
    if not keep_work:
        home.forget_work()
    progress("report", 1, 1)
    return study_run


def _run_and_score(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    home: RunFolder,
    record: Mapping[str, Any],
    *,
    seed: int,
    settings: EngineSettings,
    names: Sequence[str],
    left_out_max: int,
    resume: bool,
    progress: Progress,
) -> StudyRun:
    """Run the study and its baselines and score them; the folder gets the model alone."""
    trainees = [Trainee(s.site_id, s.declared_cohort_size, s.matrix(plan)) for s in sites]
    seconds: dict[str, float] = {}
    begun = time.perf_counter()
    result = run_study(
        plan,
        sites,
        seed=seed,
        folder=home.work,
        settings=settings,
        resume=resume,
        progress=lambda begun, rounds: progress("rounds", begun - 1, rounds),
        around_channel=lambda channel: CountedChannel(channel, file=home.traffic),
    )
    seconds["study"] = time.perf_counter() - begun
    home.write_bytes(home.model.name, encode_parameters(result.parameters))
    begun = time.perf_counter()
    trained = train_baselines(
        plan,
        trainees,
        result.parameters,
        names=names,
        seed=seed,
        left_out_max=left_out_max,
        progress=lambda done, total: progress("baselines", done, total),
    )
    seconds["baselines"] = time.perf_counter() - begun
    return StudyRun(
        folder=home.path,
        plan=plan,
        seed=seed,
        result=result,
        rounds=rounds_table(plan, result.answers, read_traffic(home.traffic)),
        sites=sites_table(plan, result, trainees),
        baselines=trained.table,
        groups=groups_table(plan, result.parameters, trainees),
        calibration=calibration_table(plan, result.parameters, trainees),
        learning=learning_table(plan, result.rounds, home.work / "coordinator", trainees),
        record={
            **record,
            "state": "finished",
            "result": _result_record(result),
            "seconds": {**seconds, "of_baseline": dict(trained.seconds)},
        },
    )


def open_run(folder: Path) -> StudyRun:
    """Return a finished run as it was written; raises `ConfigError`, `StoreError`."""
    home = RunFolder(folder)
    record = home.record()
    if record["state"] != "finished":
        raise _unfinished(folder)
    return StudyRun(
        folder=folder,
        plan=home.plan(),
        seed=record["seed"],
        result=_result_of(record["result"], home),
        rounds=home.read_table("rounds"),
        sites=home.read_table("sites"),
        baselines=home.read_table("baselines"),
        groups=home.read_table("groups"),
        calibration=home.read_table("calibration"),
        learning=home.read_table("learning"),
        record=record,
    )


def _check_quorum(plan: StudyPlan, sites: int) -> None:
    if sites < plan.training.quorum:
        raise ConfigError(
            "the study cannot be run on these sites",
            expected=f"{plan.training.quorum} sites or more, the plan's quorum",
            arrived=str(sites),
            todo="divide into more sites, accept smaller ones, or lower training.quorum",
        )


def _check_same_baselines(
    home: RunFolder, record: Mapping[str, Any], baselines: Sequence[str]
) -> None:
    if list(record["baselines"]) != list(baselines):
        raise ConfigError(
            f"the run in {home.path} has ended with other baselines",
            expected=", ".join(record["baselines"]) or "none",
            arrived=", ".join(baselines) or "none",
            todo="ask for those, or name another folder",
        )


def _write(study_run: StudyRun, home: RunFolder) -> None:
    from simulations.figures import draw_run
    from simulations.run_report import report_of

    for name in ("rounds", "sites", "baselines", "groups", "calibration", "learning"):
        home.write_table(name, getattr(study_run, name))
    for name, content in draw_run(study_run).items():
        home.write_bytes(f"{home.figures.name}/{name}", content)
    report = report_of(study_run)
    home.write_text("report.md", report.markdown())
    home.write_text("report.html", report.html(home.figures))
    # Last: a folder that says "finished" is whole.
    home.write_record(study_run.record)


def _identity(plan: StudyPlan, sites: Sequence[VirtualSite], seed: int) -> dict[str, Any]:
    return {
        "study": plan.study.id,
        "plan_digest": plan_digest(plan),
        "seed": seed,
        "sites": {site.site_id: site.fingerprint(plan) for site in sites},
    }


def _result_record(result: FederationResult) -> dict[str, Any]:
    """Return what `open_run` needs of a result besides the model's file."""
    return {
        "version": result.version,
        "rounds": [asdict(item) for item in result.rounds],
        "sites": [asdict(item) for item in result.sites],
    }


def _result_of(record: Mapping[str, Any], home: RunFolder) -> FederationResult:
    return FederationResult(
        parameters=safetensors.numpy.load(home.model.read_bytes()),
        version=parse_digest(record["version"]),
        rounds=tuple(
            Round(**{**item, "state": RoundState(item["state"])}) for item in record["rounds"]
        ),
        sites=tuple(_outcome(item) for item in record["sites"]),
    )


def _outcome(item: Mapping[str, Any]) -> SiteOutcome:
    statement = item["statement"]
    return SiteOutcome(
        **{
            **item,
            "site_id": SiteId(item["site_id"]),
            "statement": None if statement is None else LedgerStatement(**statement),
            "refusals": tuple((number, reason) for number, reason in item["refusals"]),
        }
    )


def _unfinished(folder: Path) -> ConfigError:
    return ConfigError(
        f"the run in {folder} has not ended",
        expected="a finished run",
        arrived="one that is running or was interrupted",
        todo="resume it: `cohortium-sim run ... --resume`",
    )
