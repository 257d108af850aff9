"""`cohortium-sim attack`: a membership-inference attack beside the epsilon that a plan promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import print_json

if TYPE_CHECKING:
    from simulations.membership_attack import AttackResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attack)


def attack(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    studies: Annotated[
        int, typer.Option(min=4, max=10_000, help="Studies of each kind; half are shadows.")
    ] = 32,
    targets: Annotated[
        int, typer.Option(min=10, max=10_000, help="Patients who are in or out by a coin.")
    ] = 100,
    patients: Annotated[
        int, typer.Option(min=20, max=100_000, help="Other patients of the attacked hospital.")
    ] = 100,
    sites: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Hospitals; the plan's quorum if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of patients, coins and noise.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Attack a plan's studies: who took part? As planned and without noise, beside the bound."""
    from rich.console import Console
    from rich.progress import Progress

    from common.errors import AuditError
    from common.study.plan_file import read_plan
    from common.study.selection_words import check_trains
    from simulations.membership_attack import LIMIT, AttackSize, attack_plan, attack_record

    study_plan = read_plan(plan)
    check_trains(study_plan)
    size = AttackSize(studies=studies, targets=targets, patients=patients, sites=sites)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("studies", total=2 * studies)
        results = attack_plan(
            study_plan,
            size,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        print_json(attack_record(results))
    else:
        typer.echo("\n\n".join(attack_text(result) for result in results))
        typer.echo(f"\n{LIMIT}")
    beyond = [result for result in results if not result.is_within_promise]
    if not beyond:
        return
    if json:
        raise typer.Exit(AuditError.exit_code)  # one JSON document, not two
    raise AuditError(
        "the attack found more members than the promise allows",
        expected=f"an epsilon shown of at most {beyond[0].epsilon:g}, and rates below their bounds",
        arrived=f"{beyond[0].one_run.epsilon_min:.3f}",
        todo="approve and run nothing with this installation; report the output above",
    )


def attack_text(result: AttackResult) -> str:
    """Return one attack for people."""
    promise = (
        "no promise"
        if math.isinf(result.epsilon)
        else f"epsilon {result.epsilon:g} at delta {result.delta:g}"
    )
    lines = [
        f"{result.name}: {promise}, {result.guesses} guesses",
        f"  attack AUC {result.auc:.3f} (0.5 is no leak); epsilon shown at least "
        f"{result.one_run.epsilon_min:.3f} (all guesses right would show "
        f"{result.one_run.epsilon_min_possible:.3f})",
    ]
    for rate in result.rates:
        lines.append(
            f"  of {rate.false_positive_rate:.1%} false alarms: {rate.true_positive_rate:.1%} of "
            f"members found ({rate.low:.1%} to {rate.high:.1%}); "
            + ("no bound" if rate.bound >= 1 else f"at most {rate.bound:.1%} allowed")
        )
    return "\n".join(lines)
