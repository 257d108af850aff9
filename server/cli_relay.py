"""`cohortium-coordinator relay` and `board-certificate`: the way of monitoring reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.command_line import print_json
from server.cli_context import Json, open_config

if TYPE_CHECKING:
    from server.relay_store import RelayStore

app = typer.Typer(
    help="Run the relay of sealed monitoring reports alone; `up` runs it too.",
    invoke_without_command=True,
)


def add_commands(parent: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    parent.add_typer(app, name="relay")
    parent.command("board-certificate")(board_certificate)


@app.callback()
def relay(context: typer.Context) -> None:
    """Run the relay of sealed monitoring reports alone; `up` runs it too."""
    if context.invoked_subcommand is not None:
        return
    import logging

    from server.relay_server import serve
    from server.storage.database import Database

    paths, config = open_config(context)
    Database.of(paths, config).migrate()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    serve(paths.home)


@app.command()
def roster(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A roster signed by the consortium's authority.")],
    fingerprint: Annotated[
        str, typer.Option(help="The authority's fingerprint; needed for the first roster.")
    ] = "",
    json: Json = False,
) -> None:
    """Pin a new version of the monitoring roster; an older or foreign one is refused."""
    import time

    from common.errors import ConfigError
    from server.relay_rosters import pin_given_roster

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            "the roster cannot be read",
            expected=f"a readable file {file}",
            arrived=error.strerror or type(error).__name__,
            todo="give the file that the consortium's authority signed",
        ) from None
    pinned = pin_given_roster(
        _store(context), content, fingerprint=fingerprint, now_s=int(time.time())
    )
    if json:
        print_json({"version": pinned.version, "digest": pinned.digest})
        return
    print(f"Roster version {pinned.version} is pinned and goes to every member.")
    print(f"It has {len(pinned.sites)} sites and {len(pinned.active_boards())} boards in use.")


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show what the relay holds: it can count reports and read none."""
    from common.protocol.monitoring.roster_file import read_roster

    store = _store(context)
    reports, notices = store.counts()
    pinned = [read_roster(item.content) for item in store.rosters()[:1]]
    version = pinned[0].version if pinned else None
    if json:
        print_json({"reports": reports, "notices": notices, "roster_version": version})
        return
    print(f"{reports} sealed reports and {notices} notices; roster version {version or 'none'}.")


@app.command()
def announce(context: typer.Context) -> None:
    """Send the champion to sites that have not got it; `models promote` does it by itself."""
    from common.errors import RegistryError
    from server.cli_models import champion, tell_sites

    paths, config = open_config(context)
    version = champion(paths, config)
    if version is None:
        raise RegistryError(
            "there is no model to announce",
            expected="a champion",
            arrived="none",
            todo="run `cohortium-coordinator models promote`",
        )
    tell_sites(paths, config, version)


def board_certificate(
    context: typer.Context,
    request: Annotated[Path, typer.Argument(help="The certificate request that the board sent.")],
    board: Annotated[str, typer.Option("--id", help="The board's id, as in the roster.")],
    fingerprint: Annotated[
        str, typer.Option(help="The fingerprint of its TLS key, as it read it to you.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the signed answer.")],
    json: Json = False,
) -> None:
    """Let a monitor board or aggregator reach the relay; its certificate opens no report."""
    from common.clock import SystemClock
    from common.crypto.certificates import expires_at_s
    from server.board_certificates import issue_board_certificate

    paths, config = open_config(context)
    record = issue_board_certificate(
        request,
        board_id=board,
        fingerprint=fingerprint,
        answer=out,
        paths=paths,
        config=config,
        clock=SystemClock(),
    )
    if json:
        until = expires_at_s(record.certificate)
        print_json({"board_id": board, "relay": record.relay_address, "expires_at_s": until})
        return
    print(f"{board} may reach the relay at {record.relay_address}; send {out} to it.")


def _store(context: typer.Context) -> RelayStore:
    from common.clock import SystemClock
    from server.relay_store import RelayStore
    from server.storage.database import Database

    paths, config = open_config(context)
    database = Database.of(paths, config)
    database.migrate()
    return RelayStore(database, SystemClock())
