"""`cohortium-board plan …`: the studies that the board watches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Json, open_database, open_store

app = typer.Typer(help="The studies that this board watches.", no_args_is_help=True)


@app.command()
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The study plan, TOML, as the sites approved it.")],
    cohort: Annotated[
        list[str] | None,
        typer.Option(help="SITE=PATIENTS: the most a site declares; reports above are flagged."),
    ] = None,
    json: Json = False,
) -> None:
    """Watch a study; compare the digest with the coordinator and the sites."""
    from common.clock import SystemClock
    from common.ids import parse_study_id
    from common.study.plan_file import read_plan
    from server.monitor_board.plan_book import add_plan, read_cohort, set_cohort

    plan = read_plan(file)
    declared = [read_cohort(text) for text in cohort or ()]
    database = open_database(context)
    study_id = parse_study_id(plan.study.id)
    with database.transaction() as connection:
        digest = add_plan(connection, plan, now_s=SystemClock().now_s())
        for site_id, patients in declared:
            set_cohort(connection, study_id, site_id, patients)
    if json:
        print_json({"study_id": study_id, "digest": digest})
        return
    print(f"{study_id} is watched; its plan's digest is\n  {digest}")


@app.command("list")
def list_plans(context: typer.Context, json: Json = False) -> None:
    """List the studies with their plans' digests and promoted models."""
    from common.study.plan_file import plan_digest

    rows = [
        {
            "study_id": item.study_id,
            "title": item.plan.study.title,
            "digest": plan_digest(item.plan),
            "models": [promotion.model_version for promotion in item.promotions],
        }
        for item in open_store(context).plans().values()
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['study_id']}  {row['title']}\n  plan {row['digest']}")
        for model in row["models"]:
            print(f"  model {model}")
        if not row["models"]:
            print("  no model was promoted yet")
