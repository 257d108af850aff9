"""A report of text, tables and figures, as Markdown and as one static HTML page.

The page loads nothing and runs no script; it can be read by a screen reader, in light and dark, and
printed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Words:
    """One paragraph; a warning is set apart."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Facts:
    """A table: the first column names the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure of the run's folder.

    Args:
        file: without its ending, in `figures`.
        caption: what it shows.
        description: for who cannot see it; the table beside it has the numbers.
    """

    file: str
    caption: str
    description: str


Part: TypeAlias = Words | Facts | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]


_STYLE: Final = Path(__file__).with_suffix(".css")
_PAGE: Final = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Report:
    """A report in parts, which two forms are made of."""

    title: str
    sections: Sequence[Section]

    def markdown(self) -> str:
        """Return it as Markdown; figures are named by their files."""
        lines = [f"# {_plain(self.title)}"]
        for section in self.sections:
            lines += ["", f"## {_plain(section.title)}"]
            for part in section.parts:
                lines += ["", *_markdown(part)]
        return "\n".join(lines) + "\n"

    def html(self, figures: Path) -> str:
        """Return it as one page with the figures inside.

        Args:
            figures: folder of the SVG files.
        """
        style = _STYLE.read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
            "form-action 'none'"
        )
        pictures = {
            part.file: _data_uri((figures / f"{part.file}.svg").read_bytes())
            for section in self.sections
            for part in section.parts
            if isinstance(part, Picture)
        }
        page = Environment(undefined=StrictUndefined, autoescape=True).from_string(
            _PAGE.read_text(encoding="utf-8")
        )
        return page.render(
            title=self.title,
            sections=self.sections,
            pictures=pictures,
            policy=policy,
            style=Markup(style),  # noqa: S704 (our own text)
        )


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _markdown(part: Part) -> list[str]:
    if isinstance(part, Words):
        return [("> **Note.** " if part.is_warning else "") + _plain(part.text)]
    if isinstance(part, Picture):
        return [f"![{_plain(part.description)}](figures/{part.file}.svg)", "", _plain(part.caption)]
    rows = [part.head, ["---"] * len(part.head), *part.rows]
    table = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    return [_plain(part.caption) + ":", "", *table]


def _plain(text: str) -> str:
    """Return text that stays text in Markdown, whatever a plan's words hold."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;").replace("`", "'")
