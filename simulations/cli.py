"""The `cohortium-sim` command: its demo, audit and forecast, and the commands of `cli_*`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json, run_command
from common.openblas import limit_threads
from simulations import (
    cli_attack,
    cli_compare,
    cli_generate,
    cli_run,
    cli_scenario,
    cli_sweep,
)

app = typer.Typer(
    name="cohortium-sim",
    help="Run whole federations on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main_callback() -> None:
    """Run whole federations on one machine."""
    # SIGTERM ends every command as Ctrl-C does: no process and no temporary folder, which may hold
    # patients, is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    limit_threads()


cli_run.register(app)
cli_sweep.register(app)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
    plan: Annotated[Path | None, typer.Option(help="Another plan over the same columns.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Four hospitals train one model here and watch it for three months, all parts real."""
    from rich.console import Console

    from simulations.demo import run_demo
    from simulations.demo_monitoring import monitoring_record

    console = Console(stderr=json)
    result = run_demo(folder.resolve(), plan=plan, console=console)
    after = result.monitoring
    if json:
        print_json(
            {
                "report": result.report,
                "version": result.version,
                "seconds": result.seconds,
                "card": str(result.card),
                "monitoring": None if after is None else monitoring_record(after),
            }
        )


@app.command()
def audit(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds of each shadow study, at most the plan's, as if not given."
        ),
    ] = None,
    patients: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Generated patients of each shadow study.")
    ] = 400,
    canaries: Annotated[
        int, typer.Option(min=2, max=100_000, help="Canaries over all shadow studies.")
    ] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Look for bugs that break the plan's privacy promise, on generated patients."""
    from rich.console import Console
    from rich.progress import Progress

    from common.errors import AuditError
    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from simulations.audit.report import report_record, report_text
    from simulations.audit.run import run_audit
    from simulations.audit.shadow import ShadowSize

    study_plan = read_plan(plan)
    check_trains(study_plan)
    size = ShadowSize(
        rounds=min(rounds or study_plan.training.rounds, study_plan.training.rounds),
        patients=patients,
        canaries=canaries,
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("shadow studies")
        report = run_audit(
            study_plan,
            size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        print_json(report_record(report))
    else:
        typer.echo(report_text(report))
    if report.failed and json:
        raise typer.Exit(AuditError.exit_code)  # one JSON document, not two
    if report.failed:
        raise AuditError(
            "the privacy audit found a broken promise",
            expected="every check passed",
            arrived=f"failed: {', '.join(report.failed)}",
            todo="approve and run nothing with this installation; report the output above",
        )


@app.command()
def forecast(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    site: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a public table's site.toml; again for the next hospital."),
    ] = None,
    sites: Annotated[int, typer.Option(min=2, help="Simulated hospitals, without --site.")] = 6,
    patients: Annotated[int, typer.Option(min=50, help="Simulated patients in each.")] = 500,
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Write it for `cohortium-coordinator plan calibrate`.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the forecast as JSON.")] = False,
) -> None:
    """What a plan reaches at each epsilon, on simulated patients or public tables."""
    from rich.console import Console
    from rich.progress import Progress

    from common.canonical import canonical_bytes
    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from simulations.forecast import EPSILONS, as_record, forecast_table
    from simulations.forecast import forecast as make_forecast
    from simulations.forecast_population import (
        describe_public,
        describe_simulated,
        public_population,
        simulated_population,
    )

    study_plan = read_plan(plan)
    check_trains(study_plan)
    population = (
        public_population(site)
        if site
        else simulated_population(study_plan, sites=sites, patients=patients)
    )
    words = describe_public(len(site)) if site else describe_simulated(sites, patients)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("studies", total=len(EPSILONS) * seeds)
        lines = make_forecast(
            study_plan,
            population,
            seeds=range(1, seeds + 1),
            progress=lambda epsilon, seed: bar.advance(task),
        )
    record = as_record(study_plan, lines, population=words)
    if out is not None:
        out.write_bytes(canonical_bytes(record) + b"\n")
    if json:
        print_json(record)
    else:
        print(f"{study_plan.study.id}, {words}:")
        Console().print(forecast_table(lines))


for command in (cli_attack, cli_compare, cli_generate, cli_scenario):
    command.register(app)


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run_command(app, name="cohortium-sim"))
