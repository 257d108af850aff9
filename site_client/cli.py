"""The `cohortium-site` command: parse words, call one function, print the answer."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from common.command_line import print_json, run_command
from site_client import (
    cli_check,
    cli_features,
    cli_ledger,
    cli_monitor,
    cli_records,
    cli_study,
)
from site_client.cli_context import Json, paths_of, set_home

app = typer.Typer(
    name="cohortium-site",
    help="Run a hospital's site: it decides alone what leaves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli_check.add_commands(app)
cli_study.add_commands(app)
app.add_typer(cli_features.app, name="features")
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_monitor.app, name="monitor")
cli_records.add_commands(app)


@app.callback()
def home(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="COHORTIUM_SITE_HOME", help="The site's folder.")
    ] = Path("site"),
) -> None:
    """Run a hospital's site: it decides alone what leaves."""
    set_home(context, home)


@app.command()
def enroll(
    context: typer.Context,
    site_id: Annotated[str, typer.Option("--id", help="The site's id: a-z, 0-9, hyphens.")],
    organisation: Annotated[str, typer.Option(help="The hospital's name.")],
    contact: Annotated[str, typer.Option(help="Whom the coordinator may ask.")],
    out: Annotated[Path, typer.Option(help="Where to write the request file.")],
    json: Json = False,
) -> None:
    """Make the site's keys here and write one request file; private keys never leave."""
    from common.clock import SystemClock
    from common.ids import parse_site_id
    from site_client.enrolment import SiteIdentity, make_request

    identity = SiteIdentity(parse_site_id(site_id), organisation, contact)
    paths = paths_of(context)
    fingerprint = make_request(paths, identity, out=out, clock=SystemClock())
    if json:
        print_json({"request": str(out), "fingerprint": fingerprint})
        return
    print(f"Keys and site.toml are in {paths.home}; send {out} to the coordinator.")
    print(f"Your fingerprint, to compare by telephone:\n  {fingerprint}")


@app.command("change-key")
def change_key(
    context: typer.Context,
    organisation: Annotated[str, typer.Option(help="The hospital's name.")],
    contact: Annotated[str, typer.Option(help="Whom to call or write to.")],
    out: Annotated[Path, typer.Option(help="Where to write the request with the next key.")],
    json: Json = False,
) -> None:
    """Make the next signing key, countersigned by the one in use; `join` takes it into use."""
    from dataclasses import asdict

    from common.clock import SystemClock
    from site_client.key_change import begin_key_change

    made = begin_key_change(
        paths_of(context),
        organisation=organisation,
        contact=contact,
        out=out,
        clock=SystemClock(),
    )
    if json:
        print_json({"request": str(out), **asdict(made)})
        return
    print(f"Send {out} to the coordinator and to the roster's authority, with these two lines:")
    print(f"  --key-epoch {made.key_epoch}")
    print(f"  --countersignature {made.countersignature}")
    print(f"The next key's fingerprint, to compare by telephone:\n  {made.fingerprint}")


@app.command()
def join(
    context: typer.Context,
    enrolment: Annotated[Path, typer.Argument(help="The file that the coordinator sent back.")],
    fingerprint: Annotated[
        str, typer.Option(help="The coordinator's fingerprint, as read on the telephone.")
    ],
    proxy: Annotated[str, typer.Option(help="URL of the hospital's HTTP proxy.")] = "",
    extra_ca: Annotated[
        Path | None, typer.Option(help="The hospital's own CA, where it inspects TLS.")
    ] = None,
    relay: Annotated[
        str, typer.Option(help="The coordinator's relay of monitoring reports, host:port.")
    ] = "",
    json: Json = False,
) -> None:
    """Accept the coordinator's signed answer; its key is pinned from now on."""
    from common.clock import SystemClock
    from site_client.enrolment import join as accept
    from site_client.key_change import finish_key_change

    if finish_key_change(paths_of(context), enrolment, SystemClock()) and not json:
        print("The next signing key is in use now; start `run` again.")
    record = accept(
        paths_of(context),
        enrolment,
        fingerprint=fingerprint,
        proxy=proxy,
        extra_ca=extra_ca,
        relay=relay,
    )
    if json:
        print_json(
            {
                "site_id": record.site_id,
                "consortium": record.consortium,
                "coordinator": record.coordinator_address,
            }
        )
        return
    print(f"{record.site_id} has joined {record.consortium} at {record.coordinator_address}.")
    print("Next: fill in site.toml, then `cohortium-site check PLAN` and `approve PLAN`.")


@app.command()
def run(context: typer.Context) -> None:
    """Run agent and courier together; Ctrl-C stops both."""
    from site_client.supervisor import run_site

    run_site(paths_of(context), say=_say)


@app.command()
def agent(context: typer.Context) -> None:
    """Run the agent alone: data and keys, one socket, no network."""
    import logging

    from site_client.agent_server import run_agent

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run_agent(paths_of(context))


@app.command()
def courier(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option(help="The courier's folder; default: courier/ in the site's.")
    ] = None,
) -> None:
    """Run the courier alone: network and no data."""
    import logging

    from site_client.courier.main import read_courier_config, run_courier

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    run_courier(read_courier_config(folder or paths_of(context).courier))


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run_command(app, name="cohortium-site"))
