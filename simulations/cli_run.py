"""`cohortium-sim run`: one study on virtual sites, with its folder and report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from common.command_line import print_json
from common.loading import collector_at_rest
from simulations.epsilons_ahead import epsilons_ahead
from simulations.site_options import (
    LEFT_OUT_MAX,
    Baselines,
    By,
    ByQuantity,
    ByTime,
    Data,
    Engine,
    EngineName,
    Json,
    LabelSkew,
    LeftOutMax,
    NoBaselines,
    Patients,
    PatientsMin,
    PlanFile,
    Sites,
    chosen_baselines,
)

if TYPE_CHECKING:
    from common.study.plan import StudyPlan
    from simulations.run import StudyRun


_WARNING: Final = (
    "warning: the folder will hold exact figures of these patients, without privacy noise; if they "
    "are real, keep it like their data"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run_plan)


def run_plan(
    plan: PlanFile,
    data: Data = None,
    by: By = None,
    label_skew: LabelSkew = None,
    by_quantity: ByQuantity = None,
    by_time: ByTime = None,
    sites: Sites = 10,
    patients: Patients = 500,
    patients_min: PatientsMin = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of division, sampling and noise.")] = 1,
    engine: EngineName = Engine.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as pay if not given.")
    ] = None,
    baselines: Baselines = None,
    no_baselines: NoBaselines = False,
    left_out_max: LeftOutMax = LEFT_OUT_MAX,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/STUDY-seed-SEED if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with this folder's run.")] = False,
    json: Json = False,
) -> None:
    """Run a plan on virtual sites and report what federation and privacy cost and gave."""
    from rich.console import Console

    from common.study.plan_file import read_plan  # before the fork, for both

    with epsilons_ahead(lambda: read_plan(plan)), collector_at_rest():
        from common.study.selection_words import check_trains
        from simulations.engine import EngineSettings
        from simulations.run import default_folder, run
        from simulations.site_choice import choose_sites

    study_plan = _read(plan, json=json)
    check_trains(study_plan)
    divided = choose_sites(
        study_plan,
        data=data, by=by, label_skew=label_skew, by_quantity=by_quantity, by_time=by_time,
        sites=sites, patients=patients, patients_min=patients_min, seed=seed,
    )  # fmt: skip
    for words in divided.left_out:
        print(f"left out: {words}", file=sys.stderr)
    if data is not None:
        print(_WARNING, file=sys.stderr)
    with _Bars(Console(stderr=True)) as bars:
        found = run(
            study_plan,
            divided,
            folder=out or default_folder(study_plan, seed),
            seed=seed,
            settings=EngineSettings(engine=engine.value, workers=workers),
            baselines=chosen_baselines(baselines, none=no_baselines),
            left_out_max=left_out_max,
            resume=resume,
            progress=bars.show,
        )
    if json:
        print_json(_record(found))
    else:
        _tell(found)


def _read(file: Path, *, json: bool) -> StudyPlan:
    """Return the plan, or refuse it as `cohortium-coordinator plan check` does, word for word."""
    from common.study.plan_file import read_plan
    from common.study.problems import PlanProblems

    try:
        return read_plan(file)
    except PlanProblems as error:
        if not json:
            raise
        problems = [problem.as_record() for problem in error.problems]
        print_json({**error.as_record(), "problems": problems})
        raise typer.Exit(error.exit_code) from None


class _Bars:
    """Progress on stderr with the time that is left, one bar for each thing that is done."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Show so much of one thing as done."""
        if what not in self._tasks:
            for task in self._bars.tasks:
                self._bars.update(task.id, completed=task.total)
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


def _record(found: StudyRun) -> dict[str, Any]:
    import json

    def rows(table: Any) -> Any:
        return json.loads(table.to_json(orient="records", double_precision=15))

    return {
        "study": found.plan.study.id,
        "folder": str(found.folder),
        "seed": found.seed,
        "version": found.result.version,
        "divided": found.record["divided"],
        "left_out": found.record["left_out"],
        "seconds": found.record["seconds"],
        "sites": rows(found.sites),
        "groups": rows(found.groups),
        "baselines": rows(found.baselines),
    }


def _tell(found: StudyRun) -> None:
    from rich.console import Console
    from rich.table import Table

    from common.command_line import table_width
    from simulations.baselines import ALL_SITES, FEDERATED, WORDS
    from simulations.run_report import estimate

    whole = found.baselines[found.baselines.site_id == ALL_SITES]
    table = Table(
        "trained", "sites", "AUROC, mean of sites", "95 %", "federation minus this", "95 %"
    )
    for _, row in whole.iterrows():
        words = "the federation" if row.baseline == FEDERATED else WORDS[row.baseline]
        cells: list[str] = []
        for name, form in (("auroc", ".3f"), ("federated_minus", "+.3f")):
            value = estimate(row, name)
            cells += (
                ["", ""]
                if value is None
                else [f"{value.value:{form}}", f"{value.low:{form}} to {value.high:{form}}"]
            )
        scored = int((found.baselines.baseline == row.baseline).sum()) - 1
        table.add_row(words, str(scored), *cells)
    print(f"{found.plan.study.id}: {len(found.sites)} sites, divided {found.record['divided']}")
    Console(width=table_width()).print(table)
    print(f"report: {found.folder / 'report.html'}")
