"""How every command ends: plain words on stderr, one exit code table, never a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

import click
import typer

from common.errors import CohortiumError, InternalError
from common.loading import end_at_once

INTERRUPTED_EXIT_CODE = 130


REDIRECTED_WIDTH: Final = 160
"""Columns of a table that goes into a file or a pipe: names are not cut for a screen's sake."""


def table_width() -> int | None:
    """Return the width of tables: the screen's own (None), or that of a redirected output."""
    return None if sys.stdout.isatty() else REDIRECTED_WIDTH


def run_command(app: typer.Typer, *, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a Typer application and return the process's exit code.

    A `CohortiumError` is printed in its four parts (or as one JSON object on stdout after
    `--json`); any other exception becomes an `InternalError` without its text, because that text
    could quote data.
    """
    if arguments is None:
        end_at_once()
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    code = 0
    try:
        result: Any = command.main(args=words, prog_name=name, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except CohortiumError as error:
        code = _report(error, words)
    except click.exceptions.Exit as end:
        code = int(end.exit_code)
    except click.ClickException as error:
        error.show()
        code = int(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        code = INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        code = 0
    # The last net: no traceback, and no text that could come from data.
    except Exception as error:
        code = _report(_internal(error), words)
    return code


def print_json(record: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(record, indent=2, sort_keys=True))


def _report(error: CohortiumError, words: Sequence[str]) -> int:
    if "--json" in words:
        print_json(error.as_record())
    else:
        print(str(error), file=sys.stderr)
    return error.exit_code


def _internal(error: Exception) -> InternalError:
    trace = error.__traceback__
    place = "unknown"
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return InternalError(
        "a fault inside the software",
        expected="no such fault",
        arrived=f"{type(error).__name__} at {place}",
        todo="report this line to the developers; nothing was released because of it",
    )
