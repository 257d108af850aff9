"""`cohortium-board keys …` and `certificate …`: opening keys, and the way to the relay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Fingerprint, Json, open_config, open_store

app = typer.Typer(help="The keys that open reports.", no_args_is_help=True)
certificate = typer.Typer(help="The board's certificate for the relay.", no_args_is_help=True)


@app.command()
def rotate(
    context: typer.Context,
    suite: Annotated[str, typer.Option(help="hybrid or x25519; as before without.")] = "",
    json: Json = False,
) -> None:
    """Make the next opening key and a card with it; the one in use stays until it is not needed."""
    from server.monitor_board.opening_keys import parse_suite
    from server.monitor_board.setup import rotate_opening_key

    paths, config = open_config(context)
    wanted = parse_suite(suite) if suite else None
    fingerprint = rotate_opening_key(paths, config, suite=wanted)
    if json:
        print_json({"fingerprint": fingerprint, "card": str(paths.card)})
        return
    print(f"The next opening key is {fingerprint}.")
    print(f"Send {paths.card} to the authority: the next roster names it (`roster rotate`).")


@app.command()
def show(context: typer.Context, json: Json = False) -> None:
    """List the opening keys, and which of them the newest roster names."""
    from common.protocol.monitoring.roster import Standing
    from server.monitor_board.opening_keys import OpeningKeys

    paths, _ = open_config(context)
    roster = open_store(context).newest_roster()
    named = {
        item.sealing_key.fingerprint: item.status.value
        for item in (roster.boards if roster is not None else ())
    }
    keys = OpeningKeys.read(paths.opening_keys).keys
    rows = [
        {"fingerprint": name, "suite": key.suite, "in_roster": named.get(name, "not named")}
        for name, key in keys.items()
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        in_use = " (in use)" if row["in_roster"] == Standing.ACTIVE.value else ""
        print(f"{row['fingerprint']}  suite {row['suite']}  {row['in_roster']}{in_use}")


@certificate.command("request")
def make_request(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The request file to write, PEM.")],
    json: Json = False,
) -> None:
    """Make the TLS key and the request for `cohortium-coordinator board-certificate`."""
    from server.monitor_board import setup

    paths, config = open_config(context)
    fingerprint = setup.make_request(paths, config, out)
    if json:
        print_json({"request": str(out), "fingerprint": fingerprint})
        return
    print(f"Send {out} to the coordinator, and read it on the telephone:\n  {fingerprint}")


@certificate.command()
def take(
    context: typer.Context,
    answer: Annotated[Path, typer.Argument(help="The file that the coordinator wrote.")],
    fingerprint: Fingerprint,
) -> None:
    """Keep the coordinator's answer: certificate, the relay's address, the coordinator's key."""
    from server.monitor_board.setup import take_certificate

    paths, config = open_config(context)
    record = take_certificate(paths, config, answer, fingerprint=fingerprint)
    print(f"{record.board_id} reaches the relay at {record.relay_address} from now on.")
