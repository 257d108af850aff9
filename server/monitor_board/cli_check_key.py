"""`cohortium-board check-key`: the key by which a secure sum is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.monitor_board.cli_context import open_config, open_database

app = typer.Typer(
    help="The key by which sites and boards check secure sums; aggregators never have it.",
    no_args_is_help=True,
)


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Where to write the signed check key.")],
    roster: Annotated[Path, typer.Option(help="The signed roster, with every active member.")],
    authority_key: Annotated[Path, typer.Option(help="The roster authority's private key file.")],
    number: Annotated[int, typer.Option(min=1, help="One more than the last check key's.")],
    request: Annotated[
        list[Path], typer.Option(help="A site's enrolment request; once for each active site.")
    ],
) -> None:
    """Make a new check key, sealed to every active site and board; for the roster authority."""
    from common.crypto.keys import SigningKey
    from common.protocol.enrolment import read_request
    from common.protocol.monitoring.roster_file import read_roster, verify_roster
    from server.durable_file import write_durably
    from server.monitor_board.check_keys import make_check_key
    from server.monitor_board.rosters import read_bytes

    authority = SigningKey.read(authority_key)
    data = read_bytes(roster)
    # Its place in the chain of rosters is no question for who signed all of them.
    members = verify_roster(
        data, authority=authority.verify_key, now_s=_now_s(), pinned=read_roster(data)
    )
    requests = [read_request(path) for path in request]
    write_durably(out, make_check_key(number, members, requests, authority=authority))
    print(f"Check key {number} is in {out}; a board publishes it: `check-key publish {out.name}`.")


@app.command()
def publish(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The check key that the authority signed.")],
) -> None:
    """Queue a check key for the relay; `collect` publishes it and takes it in."""
    from common.protocol.monitoring.notice_checks import verify_check_key
    from server.monitor_board.notices_out import put_notice
    from server.monitor_board.rosters import read_bytes
    from server.monitor_board.setup import pinned_authority

    _, config = open_config(context)
    data = read_bytes(file)
    sealed = verify_check_key(data, pinned_authority(config))
    database = open_database(context)
    with database.transaction() as connection:
        put_notice(connection, data, now_s=_now_s())
    database.close()
    print(f"Check key {sealed.number} is queued; `collect` publishes it.")


def _now_s() -> int:
    from common.clock import SystemClock

    return SystemClock().now_s()
