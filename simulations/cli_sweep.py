"""`cohortium-sim sweep`: a plan's fields varied over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.command_line import print_json, table_width
from common.loading import collector_at_rest
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
    from rich.console import Console

    from common.study.plan import StudyPlan
    from simulations.partition import Partition
    from simulations.sweep import Sweep
    from simulations.sweep_jobs import Sites as SitesOfSeed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep")(sweep_plan)


def sweep_plan(
    plan: PlanFile,
    vary: Annotated[
        list[str],
        typer.Option(help="PATH=VALUE,VALUE, such as privacy.epsilon=0.5,1,2,inf; again for more."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of each plan.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="Fresh ones to confirm a choice.")] = 1,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=2, help="After so many seeds, no more for plans clearly below the best at their ε."
        ),
    ] = None,
    data: Data = None,
    by: By = None,
    label_skew: LabelSkew = None,
    by_quantity: ByQuantity = None,
    by_time: ByTime = None,
    sites: Sites = 10,
    patients: Patients = 500,
    patients_min: PatientsMin = 50,
    engine: EngineName = Engine.LOCAL,
    baselines: Baselines = None,
    no_baselines: NoBaselines = False,
    left_out_max: LeftOutMax = LEFT_OUT_MAX,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; as many as cores if not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder; runs/STUDY-sweep if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Vary a plan's fields: what each choice reaches, what privacy costs, and who pays."""
    with collector_at_rest():
        from common.study.plan_file import read_plan
        from common.study.selection_words import check_trains
        from simulations.baselines import check_names
        from simulations.engine import EngineSettings
        from simulations.site_choice import choose_sites
        from simulations.sweep import EarlyStop
        from simulations.varied_plans import make_cells, read_vary

    check_trains(study_plan := read_plan(plan))
    values = read_vary(vary)
    make_cells(study_plan, values)  # a wrong plan is told before any patient is read
    check_names(beside := chosen_baselines(baselines, none=no_baselines))
    choose = partial(
        choose_sites, study_plan,
        data=data, by=by, label_skew=label_skew, by_quantity=by_quantity, by_time=by_time,
        sites=sites, patients=patients, patients_min=patients_min,
    )  # fmt: skip
    chosen = choose(seed=first_seed)
    found = _sweep(
        study_plan,
        chosen,
        # Each seed invents other patients, or holds out others of a data set.
        (lambda seed: choose(seed=seed)) if data is None else chosen,
        values,
        range(first_seed, first_seed + seeds),
        folder=out or Path("runs") / f"{study_plan.study.id}-sweep",
        workers=workers,
        settings=EngineSettings(engine=engine.value),
        stop=None if early_stop is None else EarlyStop(early_stop),
        baselines=beside,
        left_out_max=left_out_max,
    )
    _write_and_tell(found, chosen, json=json)


def _write_and_tell(found: Sweep, chosen: Partition, *, json: bool) -> None:
    from simulations.sweep_report import sweep_record, write_sweep

    told = f"{len(chosen)} sites, divided {chosen.words}"
    report = write_sweep(found, words=told, left_out=chosen.left_out)
    if json:
        record = sweep_record(found, words=told, left_out=chosen.left_out)
        print_json(record | {"folder": str(found.folder)})
    else:
        print(f"{found.plan.study.id}: {told}")
        _tell(found)
        print(f"report: {report}")


def _sweep(
    plan: StudyPlan,
    chosen: Partition,
    sites: SitesOfSeed,
    vary: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    **options: Any,
) -> Sweep:
    """Sweep with progress on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    from simulations.sweep import sweep

    console = Console(stderr=True)
    for words in chosen.left_out:
        console.print(f"left out: {words}", highlight=False)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("runs and baselines", total=None)
        return sweep(
            plan,
            sites,
            vary=vary,
            seeds=seeds,
            progress=lambda done, kept, runs: bar.update(task, completed=done, total=runs),
            **options,
        )


def _tell(found: Sweep) -> None:
    from rich.console import Console
    from rich.table import Table

    from simulations.sweep_figures import varied
    from simulations.varied_plans import in_words

    paths = varied(found)
    table = Table(*paths, "AUROC", "95 % over seeds", "mean of sites", "ε spent", "seeds")
    for row in found.summary.to_dict(orient="records"):
        is_alone = math.isnan(row["auroc_low"])
        table.add_row(
            *(in_words(row[path]) for path in paths),
            f"{row['auroc']:.3f}",
            "" if is_alone else f"{row['auroc_low']:.3f} to {row['auroc_high']:.3f}",
            f"{row['auroc_of_sites']:.3f}",
            "none" if math.isnan(row["epsilon_spent"]) else f"{row['epsilon_spent']:.3f}",
            str(row["seeds"]),
        )
    console = Console(width=table_width())
    console.print(table)
    _tell_bought(found, console)
    for name, seeds in found.stopped.items():
        print(f"stopped after {seeds} seeds, below the best of its ε: {name}")


def _tell_bought(found: Sweep, console: Console) -> None:
    """Print a row for each cell: the federation less each baseline."""
    from rich.table import Table

    from simulations.sweep_figures import varied
    from simulations.sweep_report import beside_federation, interval_text
    from simulations.varied_plans import in_words

    names = beside_federation(found)
    if not names:
        return
    paths = varied(found)
    title = "the federation's AUROC minus that of each baseline, mean of sites, 95 % over seeds"
    table = Table(*paths, *names, title=title, title_justify="left")
    for values, rows in found.bought.groupby(paths, sort=False):
        differences = rows.set_index("baseline").loc[names]
        cells = (interval_text(row, "federated_minus") for _, row in differences.iterrows())
        table.add_row(*(in_words(value) for value in values), *cells)
    console.print(table)
