"""`cohortium-sim compare-aggregation`: every aggregation under every lie, on the same hospitals."""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare-aggregation")(compare_aggregation)


def compare_aggregation(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    large: Annotated[int, typer.Option(min=1, help="Large honest hospitals.")] = 5,
    small: Annotated[int, typer.Option(min=1, help="Small honest hospitals.")] = 2,
    patients: Annotated[int, typer.Option(min=20, help="Patients of a large hospital.")] = 400,
    small_patients: Annotated[int, typer.Option(min=20, help="Patients of a small one.")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables (CSV) and the figure (PNG, SVG).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """What each aggregation saves from one lying hospital, and what it costs the small ones."""
    from rich.console import Console
    from rich.progress import Progress

    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from simulations.scenarios import compare_aggregation as comparing

    study_plan = read_plan(plan)
    check_trains(study_plan)
    size = comparing.ComparisonSize(
        large=large, small=small, patients=patients, small_patients=small_patients, seeds=seeds
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("studies")
        table = comparing.compare_aggregation(
            study_plan,
            size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    summary = comparing.summary_of(table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "aggregation-runs.csv", index=False)
        summary.to_csv(out / "aggregation.csv", index=False)
        figure = comparing.comparison_figure(summary)
        figure.savefig(out / "aggregation.png", dpi=150)
        figure.savefig(out / "aggregation.svg")
    if json:
        cells = loads(summary.to_json(orient="records", double_precision=15))  # NaN is null
        print_json({"seeds": seeds, "cells": cells})
        return
    for measure in comparing.MEASURES:
        spread = f"± half width of a 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
        typer.echo(f"\n{measure} (mean, {spread})")
        typer.echo(comparing.measure_text(summary, measure))
