"""The `cohortium-sim` command: the demo now, studies on one machine to come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json, run_command

app = typer.Typer(
    name="cohortium-sim",
    help="Run whole federations on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main_callback() -> None:
    """Run whole federations on one machine."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
    plan: Annotated[Path | None, typer.Option(help="Another plan over the same columns.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Four hospitals train one model here, with real processes, TLS and privacy ledgers."""
    import signal

    from rich.console import Console

    from simulations.demo import run_demo

    # SIGTERM ends the demo as Ctrl-C does, so that no process is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=json)
    result = run_demo(folder.resolve(), plan=plan, console=console)
    if json:
        print_json(
            {
                "report": result.report,
                "version": result.version,
                "seconds": result.seconds,
                "card": str(result.card),
            }
        )


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run_command(app, name="cohortium-sim"))
