"""The `cohortium-coordinator` command: parse words, call one function, print the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json, run_command
from server import (
    cli_decisions,
    cli_ledger,
    cli_models,
    cli_plan,
    cli_relay,
    cli_run,
    cli_select,
)
from server.cli_context import Json, open_config, paths_of, set_home

if TYPE_CHECKING:
    from server.site_directory import SiteDirectory

SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="The site's id, see `sites`.")]

app = typer.Typer(
    name="cohortium-coordinator",
    help="Run a consortium: enrol sites, launch signed study plans, keep the models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_plan.app, name="plan")
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_models.app, name="models")
cli_run.add_commands(app)
cli_relay.add_commands(app)
app.command()(cli_decisions.decisions)
app.command()(cli_select.select)


@app.callback()
def home(
    context: typer.Context,
    home: Annotated[
        Path,
        typer.Option(envvar="COHORTIUM_COORDINATOR_HOME", help="The coordinator's folder."),
    ] = Path("coordinator"),
) -> None:
    """Run a consortium: enrol sites, launch signed study plans, keep the models."""
    set_home(context, home)


@app.command()
def init(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="The consortium's name.")],
    host: Annotated[str, typer.Option(help="Name or address under which sites reach us.")],
    port: Annotated[int, typer.Option(help="TCP port for sites.", min=1, max=65535)] = 8443,
    operator_port: Annotated[
        int, typer.Option(help="TCP port on loopback for the operator.", min=0, max=65535)
    ] = 0,
    relay_port: Annotated[
        int, typer.Option(help="TCP port of the relay of monitoring reports; 0: none.", max=65535)
    ] = 0,
    json: Json = False,
) -> None:
    """Make the consortium: certificate authority, server certificate, signing key, store."""
    from common.clock import SystemClock
    from server.config import make_config
    from server.consortium import found_consortium

    listen = "127.0.0.1" if host in ("127.0.0.1", "localhost") else "0.0.0.0"  # noqa: S104
    config = make_config(
        {
            "consortium": name,
            "host": host,
            "port": port,
            "operator_port": operator_port or (port + 1 if port < 65535 else port - 1),
            "listen_host": listen,
            "relay": {"port": relay_port} if relay_port else None,
        },
        source="the new coordinator's configuration",
    )
    paths = paths_of(context)
    fingerprint = found_consortium(paths.home, config, clock=SystemClock())
    if json:
        print_json({"home": str(paths.home), "fingerprint": fingerprint})
        return
    print(f"The consortium {name} is ready in {paths.home}.")
    print(f"Your key's fingerprint, to be read to each site on the telephone:\n  {fingerprint}")
    print("Next: `cohortium-coordinator up`, and `admit` each site's request file.")


@app.command()
def fingerprint(context: typer.Context, json: Json = False) -> None:
    """Show the coordinator's fingerprint, for the telephone."""
    from common.crypto.keys import SigningKey

    text = SigningKey.read(paths_of(context).signing_key).fingerprint
    if json:
        print_json({"fingerprint": text})
    else:
        print(text)


@app.command()
def renew(context: typer.Context, json: Json = False) -> None:
    """Issue the server's TLS certificate again; then restart `up`. No site has to do anything."""
    from common.clock import SystemClock, utc_text
    from server.consortium import renew_server_certificate

    paths, config = open_config(context)
    until = utc_text(renew_server_certificate(paths, config, clock=SystemClock()))
    if json:
        print_json({"valid_until": until})
    else:
        print(f"The server's certificate is valid until {until}; restart `up` to use it.")


@app.command()
def admit(
    context: typer.Context,
    request: Annotated[Path, typer.Argument(help="The request file that the site sent.")],
    out: Annotated[Path, typer.Option(help="Where to write the enrolment file.")],
    fingerprint: Annotated[
        str, typer.Option(help="The site's fingerprint, as it read it to you on the telephone.")
    ],
    cohort_size_max: Annotated[
        int, typer.Option(help="The most patients it may declare: its greatest weight.")
    ],
    json: Json = False,
) -> None:
    """Admit a site: compare its key, check its request, write its signed enrolment file."""
    from common.protocol.enrolment import read_request

    paths, config = open_config(context)
    site = _directory(context).admit(
        read_request(request),
        fingerprint=fingerprint,
        cohort_size_max=cohort_size_max,
        paths=paths,
        config=config,
        answer=out,
    )
    if json:
        print_json({"site_id": site.site_id, "fingerprint": site.verify_key.fingerprint})
        return
    print(f"{site.site_id} ({site.organisation}) is admitted; send {out} to the site.")
    print(f"It may declare at most {site.cohort_size_max} patients; `cohort` changes that.")
    if config.relay_address:
        print(f"For monitoring reports it joins with `--relay {config.relay_address}`.")


@app.command("change-key")
def change_key(
    context: typer.Context,
    request: Annotated[Path, typer.Argument(help="The request with the site's next key.")],
    out: Annotated[Path, typer.Option(help="Where to write the enrolment file.")],
    fingerprint: Annotated[str, typer.Option(help="The next key's, as the site read it to you.")],
    key_epoch: Annotated[int, typer.Option(help="The next key's number, as the site told you.")],
    countersignature: Annotated[
        str, typer.Option(help="By the site's enrolled key over the change, in base64.")
    ],
    json: Json = False,
) -> None:
    """Give an enrolled site its next signing key, which the one before has countersigned."""
    import base64

    from common.clock import SystemClock
    from common.ids import parse_site_id
    from common.protocol.enrolment import read_request
    from server.relay_rosters import consortium_of_change
    from server.relay_store import RelayStore
    from server.storage.database import Database

    paths, config = open_config(context)
    try:
        word = base64.b64decode(countersignature, validate=True)
    except ValueError:
        word = b""  # refused below as no countersignature
    asked = read_request(request)
    store = RelayStore(Database.of(paths, config), SystemClock())
    consortium = consortium_of_change(store, parse_site_id(asked.site_id))
    site = _directory(context).change_key(
        asked,
        fingerprint=fingerprint,
        key_epoch=key_epoch,
        countersignature=word,
        roster_consortium=consortium,
        paths=paths,
        config=config,
        answer=out,
    )
    if json:
        print_json({"site_id": site.site_id, "fingerprint": site.verify_key.fingerprint})
        return
    print(f"{site.site_id} signs with its next key from now on; send {out} to it: it joins again.")


@app.command()
def suspend(context: typer.Context, site: SiteArgument) -> None:
    """Stop asking a site and accepting from it; touches no other site."""
    _set_active(context, site, is_active=False)


@app.command()
def readmit(context: typer.Context, site: SiteArgument) -> None:
    """Ask a suspended site again."""
    _set_active(context, site, is_active=True)


@app.command()
def cohort(
    context: typer.Context,
    site: SiteArgument,
    size: Annotated[int, typer.Argument(metavar="SIZE", help="The most it may declare.")],
) -> None:
    """Change the most patients that a site may declare; recorded with the time."""
    from common.ids import parse_site_id

    site_id = parse_site_id(site)
    _directory(context).set_cohort_size_max(site_id, size)
    print(f"{site_id} may declare at most {size} patients, from the next round on.")


@app.command()
def sites(context: typer.Context, json: Json = False) -> None:
    """List the enrolled sites."""
    found = _directory(context).all_sites()
    if json:
        print_json(
            [
                {
                    "site_id": site.site_id,
                    "organisation": site.organisation,
                    "active": site.is_active,
                    "cohort_size_max": site.cohort_size_max,
                    "fingerprint": site.verify_key.fingerprint,
                }
                for site in found
            ]
        )
        return
    table = Table("site", "organisation", "state", "patients at most", "fingerprint")
    for site in found:
        table.add_row(
            site.site_id,
            escape(site.organisation),
            "active" if site.is_active else "suspended",
            str(site.cohort_size_max) if site.cohort_size_max else "not set: see `cohort`",
            site.verify_key.fingerprint,
        )
    Console().print(table)


def _directory(context: typer.Context) -> SiteDirectory:
    from common.clock import SystemClock
    from server.site_directory import SiteDirectory
    from server.storage.database import Database

    paths, config = open_config(context)
    return SiteDirectory(Database.of(paths, config), SystemClock())


def _set_active(context: typer.Context, site: str, *, is_active: bool) -> None:
    from common.ids import parse_site_id

    directory = _directory(context)
    change = directory.readmit if is_active else directory.suspend
    change(parse_site_id(site))
    print(f"{site} is {'active' if is_active else 'suspended'}; `up` follows within seconds.")


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run_command(app, name="cohortium-coordinator"))
