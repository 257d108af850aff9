"""What every `cohortium-coordinator` command shares: the folder and the `--json` switch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.config import CoordinatorPaths, ServerConfig, read_config

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]


def set_home(context: typer.Context, home: Path) -> None:
    """Remember the coordinator's folder for the command that follows."""
    context.obj = CoordinatorPaths(home.resolve())


def paths_of(context: typer.Context) -> CoordinatorPaths:
    """Return the coordinator's paths."""
    paths = context.obj
    if not isinstance(paths, CoordinatorPaths):
        message = "the application's callback did not run"
        raise TypeError(message)
    return paths


def open_config(context: typer.Context) -> tuple[CoordinatorPaths, ServerConfig]:
    """Return paths and config; raises `ConfigError` when there is no coordinator."""
    paths = paths_of(context)
    return paths, read_config(paths)
