"""What every `cohortium-site` command shares: the folder and the `--json` switch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from site_client.config import SitePaths

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]


def set_home(context: typer.Context, home: Path) -> None:
    """Remember the site's folder for the command that follows."""
    context.obj = SitePaths(home.resolve())


def paths_of(context: typer.Context) -> SitePaths:
    """Return the site's paths."""
    paths = context.obj
    if not isinstance(paths, SitePaths):
        message = "the application's callback did not run"
        raise TypeError(message)
    return paths
