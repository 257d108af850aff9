"""Options of several `cohortium-sim` commands: who the sites are, what is trained beside them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

LEFT_OUT_MAX: Final = 5
"""As `simulations.baselines.LEFT_OUT_MAX`, which loads torch."""


class Engine(StrEnum):
    """What works the sites."""

    LOCAL = "local"
    FLOWER = "flower"


PlanFile: TypeAlias = Annotated[Path, typer.Argument(help="The study plan, a TOML file.")]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="TOML with a source as in site.toml; if not given, patients are invented."),
]
By: TypeAlias = Annotated[
    str | None,
    typer.Option(help="One site for each text of this column, or a CSV of subject_id,site."),
]
LabelSkew: TypeAlias = Annotated[
    float | None, typer.Option(help="Dirichlet alpha: small makes sites' outcomes differ.")
]
ByQuantity: TypeAlias = Annotated[
    float | None, typer.Option(help="Exponent of the sites' sizes by rank; 0 is equal.")
]
ByTime: TypeAlias = Annotated[
    str | None, typer.Option(help="Periods of this column, or of the index date: index-date.")
]
Sites: TypeAlias = Annotated[
    int, typer.Option(min=2, help="How many sites are cut or invented; not for --by.")
]
Patients: TypeAlias = Annotated[
    int, typer.Option(min=50, help="Invented patients of each site; not for --data.")
]
PatientsMin: TypeAlias = Annotated[
    int, typer.Option(min=20, help="A part of a data set with fewer patients is left out.")
]
EngineName: TypeAlias = Annotated[
    Engine, typer.Option(help="local: processes of this machine; flower: Flower on Ray.")
]
Baselines: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Names with commas; all when not given. See docs/simulating-a-study.md."),
]
NoBaselines: TypeAlias = Annotated[bool, typer.Option("--no-baselines", help="Train none.")]
LeftOutMax: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Sites left out in turn for leave_one_site_out.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def chosen_baselines(names: str | None, *, none: bool) -> Sequence[str]:
    """Return the baselines that `--baselines` and `--no-baselines` ask for; unchecked."""
    from simulations.baselines import ALL_BASELINES

    if none:
        return ()
    return ALL_BASELINES if names is None else tuple(names.split(","))
