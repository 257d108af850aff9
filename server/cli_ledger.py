"""`cohortium-coordinator ledger`: verify a site's exported ledger, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli_context import Json, open_config, paths_of

if TYPE_CHECKING:
    from common.crypto.keys import VerifyKey
    from common.ids import Digest, SiteId

app = typer.Typer(help="Verify the ledgers that sites export.", no_args_is_help=True)


@app.callback()
def ledger() -> None:
    """Verify the ledgers that sites export."""


@app.command()
def verify(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file that the site exported.")],
    fingerprint: Annotated[
        str, typer.Option(help="Of the site's key, as read on the telephone.")
    ] = "",
    json: Json = False,
) -> None:
    """Verify chain and signature and compute epsilon anew; an enrolled site's key is compared.

    An enrolled site's ledger must also contain every head that the site stated with its releases.
    """
    from common.protocol.ledger_export import read_export
    from common.protocol.ledger_words import print_verified

    export = read_export(file, fingerprint=fingerprint)
    enrolled = _enrolled(context, export.site_id)
    if enrolled is not None:
        key, heads = enrolled
        export = read_export(file, verify_key=key, fingerprint=fingerprint, must_contain=heads)
    is_key_known = bool(fingerprint) or enrolled is not None
    print_verified(export, is_key_known=is_key_known, json=json)


def _enrolled(context: typer.Context, site_id: SiteId) -> tuple[VerifyKey, set[Digest]] | None:
    """Return an enrolled site's key and the heads it stated, None without coordinator or site."""
    from common.ids import parse_digest
    from server.books import open_books
    from server.round_book import Outcome

    if not paths_of(context).config.exists():
        return None
    books = open_books(*open_config(context))
    for site in books.sites.all_sites():
        if site.site_id == site_id:
            heads = {
                parse_digest(answer.detail["statement"]["ledger_head"])
                for study in books.register.all_studies()
                for answer in books.rounds.answers(study.study_id)
                if answer.site_id == site_id and answer.outcome is Outcome.ACCEPTED
            }
            return site.verify_key, heads
    return None
