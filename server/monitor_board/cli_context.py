"""What every `cohortium-board` command shares: the folder, its parts, and the `--json` switch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.monitor_board.config import BoardConfig, BoardPaths, read_config

if TYPE_CHECKING:
    from server.monitor_board.storage.database import BoardDatabase
    from server.monitor_board.store import BoardStore

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]
Fingerprint = Annotated[
    str, typer.Option(help="The key's fingerprint, as you were told on the telephone.")
]


def set_home(context: typer.Context, home: Path) -> None:
    """Remember the board's folder for the command that follows."""
    context.obj = BoardPaths(home.resolve())


def paths_of(context: typer.Context) -> BoardPaths:
    """Return the board's paths."""
    paths = context.obj
    if not isinstance(paths, BoardPaths):
        message = "the application's callback did not run"
        raise TypeError(message)
    return paths


def open_config(context: typer.Context) -> tuple[BoardPaths, BoardConfig]:
    """Return paths and config; raises `ConfigError` when there is no board."""
    paths = paths_of(context)
    return paths, read_config(paths)


def open_database(context: typer.Context) -> BoardDatabase:
    """Return the board's database."""
    from server.monitor_board.storage.database import BoardDatabase

    return BoardDatabase.of(*open_config(context))


def open_store(context: typer.Context) -> BoardStore:
    """Return what the board knows."""
    from server.monitor_board.store import BoardStore

    return BoardStore(open_database(context))
