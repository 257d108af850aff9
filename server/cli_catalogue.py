"""`cohortium-coordinator plan catalogue`: what a plan may take from the feature catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from common.command_line import print_json
from server.cli_context import Json

Search = Annotated[
    str, typer.Option(help="Only entries whose name, description or codes hold this text.")
]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="As the page docs/feature-catalogue.md.")
]


def catalogue(search: Search = "", json: Json = False, markdown: Markdown = False) -> None:
    """List the features that a plan may take from the catalogue."""
    from common.study.catalogue.entries import AGGREGATES, read_catalogue
    from common.study.catalogue.page import catalogue_page, entry_record

    whole = read_catalogue()
    if markdown:
        print(catalogue_page(whole), end="")
        return
    records = [entry_record(entry) for entry in whole.entries.values()]
    found = [record for record in records if search.casefold() in str(record).casefold()]
    if json:
        print_json({"version": whole.version, "sources": whole.sources, "entries": found})
        return
    group = ""
    for record in found:
        entry = whole.entries[str(record["name"])]
        if entry.group != group:
            group = entry.group
            print(f"\n{whole.groups[group]}")
        unit = f" [{entry.unit}]" if entry.unit else ""
        print(f"  {entry.name:<32} {entry.says}{unit}")
    kinds = {entry.kind for entry in whole.entries.values()} if found else set()
    print(f"\n{len(found)} of {len(whole.entries)} entries, feature catalogue {whole.version}.")
    for kind in (kind for kind in AGGREGATES if kind in kinds and AGGREGATES[kind]):
        print(f"A {kind} is taken with one of: {', '.join(AGGREGATES[kind])}.")
