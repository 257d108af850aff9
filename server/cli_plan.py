"""`cohortium-coordinator plan …`: check and show a study plan, its schema and digest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import print_json
from server.cli_calibrate import calibrate
from server.cli_catalogue import catalogue
from server.cli_context import Json

if TYPE_CHECKING:
    from common.privacy.calibration import SelectionMechanisms
    from common.study.plan import StudyPlan

app = typer.Typer(help="Check and calibrate study plans.", no_args_is_help=True)

app.command()(calibrate)
app.command()(catalogue)

PlanFile = Annotated[Path, typer.Argument(help="A study plan, TOML.")]


@app.command()
def check(file: PlanFile, json: Json = False) -> None:
    """Check a plan against every rule and say what it would cost in privacy."""
    from common.privacy.calibration import plan_mechanisms
    from common.study.columns import feature_columns, parameter_shapes
    from common.study.plan_file import plan_digest, read_plan
    from common.study.problems import PlanProblems

    try:
        plan = read_plan(file)
    except PlanProblems as error:
        if not json:
            raise
        record: dict[str, object] = dict(error.as_record())
        record["problems"] = [problem.as_record() for problem in error.problems]
        print_json(record)
        raise typer.Exit(error.exit_code) from None
    planned = plan_mechanisms(plan)
    parameters = sum(_product(shape) for shape in parameter_shapes(plan).values())
    selection_noise = planned.selection and [
        planned.selection.of_round(number).noise_multiplier for number in (1, 2)
    ]
    if json:
        print_json(
            {
                "study": plan.study.id,
                "digest": plan_digest(plan),
                "epsilon": plan.privacy.epsilon,
                "delta": plan.privacy.delta,
                "noise_multiplier": planned.train_per_round.noise_multiplier,
                "evaluation_noise_multiplier": planned.evaluation_per_release.noise_multiplier,
                "tuning_noise_multiplier": planned.tuning_per_release.noise_multiplier
                if planned.tuning_per_release
                else None,
                "selection_noise_multipliers": selection_noise,
                "scaling_noise_multiplier": planned.scaling.noise_multiplier
                if planned.scaling
                else None,
                "columns": len(feature_columns(plan)),
                "parameters": parameters,
                "monitoring": _monitoring_record(plan),
            }
        )
        return
    print(f"{file.name} meets every rule.")
    print(f"  study:    {plan.study.id}: {plan.study.title}")
    print(f"  digest:   {plan_digest(plan)}")
    if planned.selection is not None:
        _tell_selection(plan, planned.selection)
        return
    print(
        f"  privacy:  epsilon {plan.privacy.epsilon:g}, delta {plan.privacy.delta:g} for each "
        f"patient over all {plan.training.rounds} rounds (add or remove one patient)"
    )
    tuning = planned.tuning_per_release
    print(
        f"  noise:    multiplier {planned.train_per_round.noise_multiplier:.4f} in training, "
        f"{planned.evaluation_per_release.noise_multiplier:.4f} in each of "
        f"{plan.evaluation.releases if tuning is None else 1} evaluations of held-out patients"
    )
    if tuning is not None:
        print(
            f"            {tuning.noise_multiplier:.4f} in each of {plan.evaluation.releases - 1} "
            "evaluations of tuning patients"
        )
    if planned.scaling is not None:
        print(
            f"  scaling:  one release before round 1, multiplier "
            f"{planned.scaling.noise_multiplier:.4f}, within the same epsilon"
        )
    print(
        f"  model:    {plan.model.kind}, {len(feature_columns(plan))} columns, "
        f"{parameters} parameters"
    )
    for line in _monitoring_lines(plan):
        print(f"  reports:  {line}")


def _monitoring_record(plan: StudyPlan) -> dict[str, float] | None:
    from dataclasses import asdict

    from common.study.report_epsilon import report_epsilon

    found = report_epsilon(plan)
    return None if found is None else asdict(found)


def _monitoring_lines(plan: StudyPlan) -> list[str]:
    """Say what the reports after training cost, and to whom."""
    from common.study.report_epsilon import report_epsilon

    found, monitoring = report_epsilon(plan), plan.monitoring
    if found is None or monitoring is None:
        return []
    lines = [
        f"epsilon {found.planned:g} for the reports of one period, at delta {plan.privacy.delta:g}"
    ]
    if monitoring.mode == "sum":
        lines = [
            f"{lines[0]}, against whoever sees sums over {monitoring.sum_sites_min} or more sites",
            f"epsilon {found.at_site:.3f} of one period against both aggregators together: each "
            "site adds a part of the noise",
        ]
    count = monitoring.periods_max
    return [
        *lines,
        f"epsilon {found.of_all:.3f} for all reports of {count} periods: a site is charged this",
    ]


def _tell_selection(plan: StudyPlan, selection: SelectionMechanisms) -> None:
    single, joint = selection.single, selection.joint
    print(
        f"  selects:  epsilon {plan.privacy.epsilon:g}, delta {plan.privacy.delta:g} for each "
        "patient over both counts (add or remove one patient); nothing is trained"
    )
    print(
        f"  noise:    {single.noise_multiplier:.1f} patients in each cell of "
        f"{single.cells_per_patient_max} candidates, {joint.noise_multiplier:.1f} in each of "
        f"{joint.cells_per_patient_max} pairs"
    )
    print("  next:     `cohortium-coordinator select` it; `launch` refuses it")


@app.command()
def digest(file: PlanFile) -> None:
    """Print the digest by which sites approve this plan."""
    from common.study.plan_file import plan_digest, read_plan

    print(plan_digest(read_plan(file)))


@app.command()
def show(file: PlanFile) -> None:
    """Print a plan with everything written out: defaults, and what is from the catalogue."""
    from common.study.plan_file import read_plan
    from common.study.plan_toml import plan_toml

    plan = read_plan(file)
    print(plan_toml(plan), end="")
    for line in _monitoring_lines(plan):
        print(f"# reports: {line}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study plan."""
    from common.study.plan_file import plan_schema

    print_json(plan_schema())


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
