"""`cohortium-sim generate`: hospitals of generated patients, written for real sites to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(generate)


def generate(
    out: Annotated[Path, typer.Option(help="A new or empty folder, one folder a hospital in it.")],
    hospitals: Annotated[
        str,
        typer.Option(help="How many hospitals, or a TOML file with the dials of each."),
    ] = "4",
    patients: Annotated[
        int,
        typer.Option(min=1, max=10_000_000, help="Mean of a hospital, unless a file says it."),
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same gives the same patients.")] = 1,
    form: Annotated[
        str, typer.Option("--as", help="Form of the data: omop, fhir, meds or csv.")
    ] = "meds",
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Synthetic patients with a known risk model, in hospitals whose differences are dialled."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from common.errors import ConfigError
    from simulations.populations import Form, read_hospitals
    from simulations.populations import generate as make_population

    if form not in tuple(Form):
        raise ConfigError(
            "this form is not known",
            expected=f"one of {', '.join(Form)}",
            arrived=repr(form[:40]),
            todo="choose one with --as",
        )
    found = int(hospitals) if hospitals.isdecimal() else read_hospitals(Path(hospitals))
    population = make_population(found, seed=seed, patients=patients)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("hospitals", total=len(population))
        written = population.write(out, Form(form), progress=lambda _: bar.advance(task))
    if json:
        print_json({"form": form, "seed": seed, "hospitals": [asdict(item) for item in written]})
        return
    table = Table("hospital", "patients", "stays", "events", "deaths in the data")
    for item in written:
        table.add_row(item.site_id, *(f"{count:,}" for count in list(asdict(item).values())[1:]))
    Console().print(table)
    print(f"{out}: a site.toml in each hospital's folder; what was true is in truth/")
