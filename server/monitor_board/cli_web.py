"""`cohortium-board serve` and `report`: the board's pages in a browser, or as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError
from server.monitor_board.cli_context import open_config, open_store

if TYPE_CHECKING:
    from server.monitor_board.web.store_views import StoreViews

_PEM = "PEM file"


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the board's program."""
    app.command()(serve)
    app.command()(report)


def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; that of board.toml when not given.")
    ] = "",
    port: Annotated[
        int, typer.Option(help="TCP port; that of board.toml when not given.", min=0, max=65535)
    ] = 0,
    certificate: Annotated[
        Path | None, typer.Option(help=f"{_PEM} with the TLS certificate and its chain.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help=f"{_PEM} with the certificate's key.")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A further host name of this page; may be repeated.")
    ] = None,
) -> None:
    """Show the board's pages to a browser; prints where to log in."""
    from server.monitor_board.web.serve import Listen
    from server.monitor_board.web.serve import serve as serve_pages

    paths, config = open_config(context)
    listen = Listen(
        host or config.web_host, port or config.web_port, certificate, key, tuple(name or ())
    )
    listen.check()
    serve_pages(_views(context), paths.home / "web", listen)


def report(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The HTML file to write.")],
) -> None:
    """Write the board's pages as one HTML file that loads nothing and runs no program."""
    from server.monitor_board.web.report_file import write_report

    if out.exists():
        raise ConfigError(
            f"{out} is there already",
            expected="a name that is not taken",
            arrived="an existing file",
            todo="give another name",
        )
    write_report(_views(context).make(), out)
    print(f"{out} holds what the board sees: keep it as the board's store is kept.")


def _views(context: typer.Context) -> StoreViews:
    from common.clock import SystemClock
    from server.monitor_board.web.store_views import StoreViews

    _, config = open_config(context)
    return StoreViews(open_store(context), name=config.consortium, clock=SystemClock())
