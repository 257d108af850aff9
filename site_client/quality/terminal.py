"""A report's sentences and tables on a terminal; bars stay on the page."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from site_client.quality.document import Document, Section


def print_report(console: Console, document: Document) -> None:
    """Print a report; foreign text is never read as markup."""
    for section in document.sections:
        if not (section.paragraphs or section.items or section.tables):
            continue
        _print_section(console, section)
    console.print(escape(document.notice))


def _print_section(console: Console, section: Section) -> None:
    console.print(f"\n[bold]{escape(section.heading)}[/bold]")
    for text in section.paragraphs:
        console.print(escape(text))
    for text in section.items:
        console.print(f"- {escape(text)}", highlight=False)
    for table in section.tables:
        if not table.rows:
            continue
        shown = Table(
            *(escape(text) for text in table.columns),
            title=escape(table.caption),
            title_justify="left",
        )
        for row in table.rows:
            shown.add_row(*(escape(text) for text in row))
        console.print(shown)
