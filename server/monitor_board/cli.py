"""The `cohortium-board` command: parse words, call one function, print the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json, run_command
from server.monitor_board import (
    cli_aggregate,
    cli_check_key,
    cli_collect,
    cli_decide,
    cli_keys,
    cli_plan,
    cli_roster,
    cli_signals,
    cli_web,
)
from server.monitor_board.cli_context import Fingerprint, Json, open_config, paths_of, set_home

app = typer.Typer(
    name="cohortium-board",
    help="Run a monitor board: open the sites' reports, judge them, decide with two signatures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_roster.app, name="roster")
app.add_typer(cli_plan.app, name="plan")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_keys.certificate, name="certificate")
app.add_typer(cli_decide.app, name="decide")
cli_collect.add_commands(app)
cli_web.add_commands(app)
app.command()(cli_signals.signals)
app.command()(cli_aggregate.aggregate)
app.add_typer(cli_check_key.app, name="check-key")


@app.callback()
def home(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="COHORTIUM_BOARD_HOME", help="The board's folder.")
    ] = Path("board"),
) -> None:
    """Run a monitor board: open the sites' reports, judge them, decide with two signatures."""
    set_home(context, home)


@app.command()
def init(
    context: typer.Context,
    consortium: Annotated[str, typer.Option(help="The consortium's name, as in its roster.")],
    board: Annotated[str, typer.Option("--id", help="The board's id: a short slug.")],
    role: Annotated[
        str, typer.Option(help="board, or in a secure sum aggregator-a or aggregator-b.")
    ] = "board",
    suite: Annotated[
        str, typer.Option(help="Of the opening key: hybrid, or x25519 where the roster allows it.")
    ] = "hybrid",
    json: Json = False,
) -> None:
    """Make a board: its keys, its store, and the card that the roster's authority is given."""
    from common.crypto.certificates import board_name
    from server.monitor_board.config import make_config
    from server.monitor_board.opening_keys import parse_suite
    from server.monitor_board.setup import found_board

    board_name(board)  # an id that no certificate can have is refused here, not later
    config = make_config(
        {"consortium": consortium, "board_id": board, "role": role},
        source="the new board's configuration",
    )
    paths = paths_of(context)
    fingerprint = found_board(paths, config, suite=parse_suite(suite))
    if json:
        print_json({"home": str(paths.home), "card": str(paths.card), "fingerprint": fingerprint})
        return
    print(f"The board {board} is ready in {paths.home}.")
    print(f"Send {paths.card} to the consortium's authority, and read it on the telephone:")
    print(f"  {fingerprint}")
    print("Next: `cohortium-board certificate request OUT` for the coordinator.")


@app.command()
def authority(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The key file to write; keep it offline.")],
    json: Json = False,
) -> None:
    """Make the key that signs rosters; on a machine of the consortium, not the coordinator's."""
    from common.crypto.keys import SigningKey

    key = SigningKey.generate()
    key.write(out)
    if json:
        print_json({"file": str(out), "fingerprint": key.fingerprint})
        return
    print(f"{out} holds the authority's key; whoever has it names the receivers of all reports.")
    print(f"Its fingerprint, for every site and board:\n  {key.fingerprint}")


@app.command()
def trust(
    context: typer.Context,
    roster: Annotated[Path, typer.Argument(help="Any roster that the authority signed.")],
    fingerprint: Fingerprint,
) -> None:
    """Pin the roster authority's key: the board believes no other roster from now on."""
    from common.protocol.monitoring.roster_file import verify_roster_chain
    from server.monitor_board.rosters import read_bytes, read_file
    from server.monitor_board.setup import trust_authority

    paths, _ = open_config(context)
    claimed = read_file(roster)
    verify_roster_chain(
        [read_bytes(roster)],
        authority=claimed.authority,
        now_s=claimed.not_before_s,
        pinned=None,
    )
    trust_authority(paths, claimed.authority, fingerprint=fingerprint)
    print(f"The authority {claimed.authority.fingerprint} is pinned.")


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run_command(app, name="cohortium-board"))
