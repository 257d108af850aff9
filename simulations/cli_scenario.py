"""`cohortium-sim scenario`: what goes wrong, operation by operation, and what must hold."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.command_line import print_json

if TYPE_CHECKING:
    from simulations.scenarios.play import ScenarioResult, Step


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scenario)


def scenario(
    file: Annotated[Path, typer.Argument(help="The scenario, a TOML file.")],
    seed: Annotated[int, typer.Option(min=0, help="Of patients, noise and sampling.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Play a scenario and check every condition after every operation."""
    from common.errors import ScenarioError
    from simulations.scenarios.play import play
    from simulations.scenarios.scenario import read_scenario

    # Refusals are what a scenario is about: they are printed below, not logged as faults.
    logging.getLogger("cohortium").setLevel(logging.CRITICAL)
    found, plan = read_scenario(file)
    if not json:
        typer.echo(f"{found.title}\n")
    result = play(found, plan, seed=seed, progress=(lambda step: None) if json else _print_step)
    if json:
        print_json(scenario_record(result))
    else:
        typer.echo(_end_in_words(result))
    if not result.breaches:
        return
    if json:
        raise typer.Exit(ScenarioError.exit_code)  # one JSON document, not two
    step, breach = result.breaches[0]
    raise ScenarioError(
        f"operation {step.number} ({step.operation}) broke the condition {breach.condition!r}",
        expected=breach.says,
        arrived=breach.found,
        todo="a condition of safety that breaks is a fault of this program: report it with the "
        "file and the seed; an expectation of the file's own may be too high",
    )


def scenario_record(result: ScenarioResult) -> dict[str, Any]:
    """Return a result for JSON."""
    return asdict(result) | {"is_passed": not result.breaches}


def _print_step(step: Step) -> None:
    typer.echo(f"{step.number:4}  {step.operation}")
    for event in step.events:
        typer.echo(f"        {event}")
    for breach in step.breaches:
        typer.echo(f"        BROKEN  {breach.condition}: {breach.found}")


def _end_in_words(result: ScenarioResult) -> str:
    lines = [f"\nstudy {result.state}, seed {result.seed}"]
    if result.auroc is not None:
        sites = ", ".join(
            f"{site_id} {value:.3f}"
            for site_id, value in result.auroc_by_site.items()
            if value is not None
        )
        lines.append(f"AUROC {result.auroc:.3f} on all held-out patients ({sites})")
    if result.backdoor is not None:
        lines.append(f"the trigger turns {result.backdoor:.0%} of low-risk patients to high risk")
    if not result.breaches:
        lines.append(f"every condition held after each of {len(result.steps)} operations")
    return "\n".join(lines)
