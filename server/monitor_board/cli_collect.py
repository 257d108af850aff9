"""`cohortium-board collect` and `status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.command_line import print_json
from server.monitor_board.cli_context import Json, open_config, open_database, open_store

if TYPE_CHECKING:
    from server.monitor_board.collector import Pass


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command()(collect)
    app.command()(status)


def collect(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch/--once", help="Go on until Ctrl-C, or make one pass.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            help="Read the relay from its beginning and tell it again what it lost; nothing "
            "is counted twice."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Fetch from the relay, take what is new, publish receipts and decisions."""
    from common.errors import CohortiumError
    from server.monitor_board.collecting import open_collector
    from server.monitor_board.relay_connection import connected
    from server.monitor_board.setup import read_certificate

    paths, config = open_config(context)
    database = open_database(context)
    database.migrate()
    certificate = read_certificate(paths)
    collector = open_collector(paths, config, database, certificate)
    if again:
        collector.forget_positions()
    while True:
        try:
            with connected(paths.tls_key, certificate, address=config.relay) as relay:
                done = collector.once(relay)
                while watch:
                    _say(done, is_json=False)
                    time.sleep(config.poll_s)
                    done = collector.once(relay)
        except CohortiumError as error:
            # A relay that is away, a database that is locked, a roster that has ended: each may be
            # mended while this runs, and a pass does nothing twice.
            if not watch:
                raise
            print(f"{error.refused}: {error.arrived}; trying again", flush=True)
            time.sleep(config.poll_s)
            continue
        _say(done, is_json=json)
        return


def status(context: typer.Context, json: Json = False) -> None:
    """Show what the board holds, what is missing, refused or implausible, and what waits."""
    from server.monitor_board.status import board_status

    record = board_status(open_store(context))
    if json:
        print_json(record)
        return
    _print_status(record)


def _say(done: Pass, *, is_json: bool) -> None:
    taken = {outcome.value: number for outcome, number in done.taken.items()}
    if is_json:
        print_json({"reports": taken, "notices": done.notices, "published": done.published})
    elif done.has_news:
        reports = ", ".join(f"{number} {outcome}" for outcome, number in taken.items())
        print(f"Reports: {reports or 'none'}; notices: {done.notices} in, {done.published} out.")
    else:
        print("Nothing new.")


def _print_status(record: dict[str, Any]) -> None:
    roster = record["roster"]
    print(
        f"Roster {roster['version']}, in force until {roster['ends']}" if roster else "No roster."
    )
    for chain in record["chains"]:
        print(f"holds    {_place(chain)}, of {chain['received']}, key epoch {chain['key_epoch']}")
    for item in record["sums"]:
        state = f"{item['answers']} of 2 answers" if not item["joined"] else "joined"
        refused = f"REFUSED {item['number']}: {item['words']}" if item["number"] else state
        what = f"{item['study']}  {item['kind']} of {item['period']}, {item['sites']} sites"
        print(f"sum      {what}: {refused}")
    for gap in record["missing"]:
        print(f"MISSING  {_place(gap)}, since {gap['since']}")
    for item in record["waiting"]:
        print(f"waits    {_place(item)} ({item['number']})")
    for item in record["refused"]:
        print(f"{item['number']:8} {_place(item)}: expected {item['expected']}; {item['arrived']}")
    for item in record["implausible"]:
        print(f"ODD      {_place(item)}: {item['words']}")
    for item in record["refused_notices"]:
        print(f"notice {item['position']} refused: {item['reason']}")
    print(f"{record['unpublished']} notice(s) wait for the relay.")


def _place(item: dict[str, Any]) -> str:
    return f"{item['study']}  {item['site']}  report {item['sequence']}"
