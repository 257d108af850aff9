"""`cohortium-coordinator models …`: versions, aliases, export and model cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json
from server.cli_context import Json, open_config

if TYPE_CHECKING:
    from server.config import CoordinatorPaths, ServerConfig
    from server.registry.actions import ModelActions

app = typer.Typer(help="Model versions and who promoted them.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(help="A version's digest or its first 6 characters.")]
Person = Annotated[str, typer.Option("--as", help="Who decides: a person's name.")]
Reason = Annotated[str, typer.Option(help="Why.")]


@app.command("list")
def list_versions(context: typer.Context, json: Json = False) -> None:
    """List model versions, oldest first, with the aliases champion and previous."""
    from common.clock import utc_text
    from server.books import open_books

    paths, config = open_config(context)
    versions = open_books(paths, config).registry.all_versions()
    aliases = _actions(paths, config).aliases()
    named = {version: alias for alias, version in aliases.items()}
    if json:
        print_json(
            [
                {
                    "version": item.version,
                    "study_id": item.study_id,
                    "round": item.round_number,
                    "created": utc_text(item.created_at_s),
                    "alias": named.get(item.version, ""),
                }
                for item in versions
            ]
        )
        return
    table = Table("version", "study", "round", "created", "alias")
    for item in versions:
        table.add_row(
            item.version[:12],
            item.study_id,
            str(item.round_number),
            utc_text(item.created_at_s),
            escape(named.get(item.version, "")),
        )
    Console().print(table)


@app.command()
def show(context: typer.Context, version: Version) -> None:
    """Show one version with its whole lineage as JSON."""
    from server.books import open_books

    paths, config = open_config(context)
    found = open_books(paths, config).registry.find(version)
    print_json(
        {
            "version": found.version,
            "study_id": found.study_id,
            "round": found.round_number,
            "plan_digest": found.plan_digest,
            "lineage": found.lineage,
        }
    )


@app.command()
def export(
    context: typer.Context,
    version: Version,
    out: Annotated[Path, typer.Option(help="File to write, safetensors.")],
) -> None:
    """Write a version's parameters to a file."""
    from server.books import open_books
    from server.durable_file import write_durably

    paths, config = open_config(context)
    books = open_books(paths, config)
    write_durably(out, books.rounds.read_parameters(books.registry.find(version).version))
    print(f"{out} holds {version}.")


@app.command()
def card(
    context: typer.Context,
    version: Version,
    out: Annotated[Path, typer.Option(help="Folder for card.md and card.html.")],
) -> None:
    """Write a version's model card as Markdown and HTML."""
    from common.limits import PARAMETERS_BYTES_MAX
    from common.protocol.arrays import decode_parameters
    from common.study.scaling import model_shapes, split_model
    from server.books import open_books
    from server.durable_file import write_durably
    from server.model_card import render_card
    from server.study_report import report_study

    paths, config = open_config(context)
    books = open_books(paths, config)
    found = books.registry.find(version)
    study = books.register.find(found.study_id)
    arrays = decode_parameters(
        books.rounds.read_parameters(found.version),
        expected=model_shapes(study.plan),
        bytes_max=PARAMETERS_BYTES_MAX,
    )
    scaling = split_model(arrays)[1]
    rendered = render_card(found, study, report_study(books, found.study_id), scaling=scaling)
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / "card.md", rendered.markdown.encode())
    write_durably(out / "card.html", rendered.html.encode())
    print(f"The model card is in {out}: card.md and card.html.")


@app.command()
def promote(context: typer.Context, version: Version, person: Person, reason: Reason) -> None:
    """Make a version the champion; signed and logged under a person's name."""
    from server.books import open_books

    paths, config = open_config(context)
    found = open_books(paths, config).registry.find(version)
    _actions(paths, config).promote(found.version, person=person, reason=reason)
    print(f"{found.version[:12]} is the champion.")
    tell_sites(paths, config, found.version)


@app.command()
def rollback(context: typer.Context, person: Person, reason: Reason) -> None:
    """Make the previous champion the champion again; signed and logged."""
    paths, config = open_config(context)
    version = _actions(paths, config).rollback(person=person, reason=reason)
    print(f"{version[:12]} is the champion again.")
    tell_sites(paths, config, version)


@app.command()
def log(context: typer.Context, json: Json = False) -> None:
    """Verify and show the signed log of promotions and rollbacks."""
    from common.clock import utc_text

    paths, config = open_config(context)
    rows = [
        {
            "at": utc_text(item.at_s),
            "action": item.action,
            "version": item.version,
            "person": item.person,
            "reason": item.reason,
        }
        for item in _actions(paths, config).log()
    ]
    if json:
        print_json(rows)
        return
    table = Table("at", "action", "version", "person", "reason")
    for row in rows:
        person, reason = escape(row["person"]), escape(row["reason"])
        table.add_row(row["at"], row["action"], row["version"][:12], person, reason)
    Console().print(table)
    print(f"{len(rows)} entries; the chain and every signature verify.")


def champion(paths: CoordinatorPaths, config: ServerConfig) -> str | None:
    """Return the champion's version, where there is one."""
    return _actions(paths, config).aliases().get("champion")


def tell_sites(paths: CoordinatorPaths, config: ServerConfig, version: str) -> None:
    """Let the relay carry the promotion, where there is one, and say so."""
    from server.promotions import announce_version
    from server.storage.database import Database

    Database.of(paths, config).migrate()
    promotion = announce_version(paths, config, version)
    if promotion is not None:
        print(f"It goes to the sites as promotion {promotion.sequence} of {promotion.study_id}.")


def _actions(paths: CoordinatorPaths, config: ServerConfig) -> ModelActions:
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from server.registry.actions import ModelActions
    from server.storage.database import Database

    key = SigningKey.read(paths.signing_key)
    return ModelActions(Database.of(paths, config), SystemClock(), key)
