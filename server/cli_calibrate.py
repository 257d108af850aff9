"""`cohortium-coordinator plan calibrate`: noise, batch and a forecast, before anybody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from common.command_line import print_json
from server.cli_context import Json

if TYPE_CHECKING:
    from server.forecast_file import ForecastRecord
    from server.plan_calibration import BatchLine, NoiseLine


def calibrate(
    file: Annotated[Path, typer.Argument(help="A study plan, TOML.")],
    cohort_size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Declared patients of a site; again for another size."),
    ] = None,
    forecast: Annotated[
        Path | None, typer.Option(help="A forecast that `cohortium-sim forecast` wrote.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option(help="Forecast on simulated patients if there is no file.")
    ] = True,
    sites: Annotated[int, typer.Option(min=2, help="Simulated hospitals.")] = 6,
    patients: Annotated[int, typer.Option(min=50, help="Simulated patients in each.")] = 500,
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions of the forecast.")] = 3,
    json: Json = False,
) -> None:
    """Show the noise a plan needs at each epsilon, what a step is, and what to expect of it."""
    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from server.forecast_file import make_forecast, read_forecast
    from server.plan_calibration import COHORT_SIZES, batch_lines, noise_lines

    plan = read_plan(file)
    check_trains(plan)
    noise = noise_lines(plan)
    own = next(line for line in noise if line.is_plans)
    written = plan.privacy.noise_multiplier
    used = own.noise_multiplier if written == "calibrate" else written
    batches = batch_lines(plan, used, cohort_sizes=tuple(cohort_size or COHORT_SIZES))
    expected: ForecastRecord | None = None
    if forecast is not None:
        expected = read_forecast(forecast, plan)
    elif simulate:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("simulated studies")
            expected = make_forecast(
                plan,
                sites=sites,
                patients=patients,
                seeds=seeds,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    if json:
        print_json(
            {
                "noise": [{**vars(line), "unused": line.unused} for line in noise],
                "batches": [vars(line) for line in batches],
                "forecast": None if expected is None else expected.model_dump(),
            }
        )
        return
    _print_noise(noise)
    _print_batches(batches, used)
    if expected is not None:
        _print_forecast(expected)
    elif simulate:
        print("No forecast: install `cohortium[simulation]`, or give one with --forecast.")


def _print_noise(lines: tuple[NoiseLine, ...]) -> None:
    table = Table("epsilon", "noise multiplier", "epsilon spent", "unused", "")
    for line in lines:
        table.add_row(
            f"{line.epsilon:g}",
            f"{line.noise_multiplier:.4f}",
            f"{line.epsilon_spent:.4f}",
            f"{line.unused:.2%}",
            "the plan's" if line.is_plans else "",
        )
    Console().print(table)


def _print_batches(lines: tuple[BatchLine, ...], noise_multiplier: float) -> None:
    print(f"A step with noise multiplier {noise_multiplier:.4f}:")
    table = Table("declared cohort", "patients in a step", "noise in the mean gradient (of C)")
    for line in lines:
        table.add_row(
            f"{line.cohort_size}", f"{line.batch:.1f}", f"{line.noise_per_coordinate:.4f}"
        )
    Console().print(table)


def _print_forecast(record: ForecastRecord) -> None:
    print(f"Forecast ({record.population}):")
    table = Table("epsilon", "AUROC, mean of sites", "SD over seeds", "seeds")
    for line in record.lines:
        table.add_row(
            "∞, no noise" if line.epsilon == "infinity" else f"{float(line.epsilon):g}",
            f"{float(line.auroc_mean):.3f}",
            f"{float(line.auroc_sd):.3f}",
            str(line.seeds),
        )
    Console().print(table)
