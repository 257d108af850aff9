"""A report to read: sections of sentences, tables and bars, whatever shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableOfFigures:
    """A table; every cell is text as a person reads it, not yet escaped for any output.

    Args:
        caption: what it shows.
        columns: their heads.
        rows: as many cells as columns; the first names the row.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Bars:
    """A bar chart with its numbers.

    Args:
        title: what it shows.
        label: what the first column of its numbers is.
        counts: (label, height or None where it is not shown, the count as text).
    """

    title: str
    label: str
    counts: tuple[tuple[str, int | None, str], ...]


@dataclass(frozen=True)
class Section:
    """One heading with what belongs to it, in the order paragraphs, items, tables, charts."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    tables: tuple[TableOfFigures, ...] = ()
    charts: tuple[Bars, ...] = ()


@dataclass(frozen=True)
class Document:
    """One report.

    Args:
        title: of the page.
        notice: who may see it, the first thing a reader sees.
        sections: in order.
    """

    title: str
    notice: str
    sections: tuple[Section, ...]


def plain_text(text: str) -> str:
    """Return a source's or plan's text without control characters, which a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
