"""A report as one static HTML page: nothing is loaded, no script can run, plots are inline SVG."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from pathlib import Path
from typing import Final

from common.errors import ConfigError
from site_client.quality.document import Bars, Document, Section, TableOfFigures

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#8a929b;--bar:#2b6197;--box:#f1f4f7}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#15181c;--line:#7d8590;--bar:#82b1e6;
--box:#22272e}}
@media print{:root{--ink:#000;--paper:#fff;--line:#666;--bar:#444;--box:#fff}}
body{font:16px/1.5 sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h2{margin-top:2.5rem}
.notice{border:1px solid var(--line);background:var(--box);padding:.5rem 1rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0}
caption{text-align:left;font-weight:bold;padding:.3rem 0}
td,th{border:1px solid var(--line);padding:.2rem .6rem;text-align:left;vertical-align:top;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
figure{margin:2rem 0;display:flex;flex-wrap:wrap;gap:1rem 2rem;align-items:flex-start}
figure>svg{flex:1 1 26rem;max-width:40rem;height:auto}
figcaption{flex:1 0 100%;font-weight:bold}
svg text{font:13px sans-serif;fill:var(--ink)}
svg rect{fill:var(--bar)}
svg line{stroke:var(--line)}
tr,figure>svg{break-inside:avoid}
h2,figcaption,caption{break-after:avoid}
"""
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; form-action 'none'"
)

_ROW_PX: Final = 20
_LABEL_PX: Final = 190
_BARS_PX: Final = 330
_COUNT_PX: Final = 80
_LABEL_LETTERS_MAX: Final = 26


def page_of(document: Document) -> str:
    """Return the report as HTML; every text of it is escaped here."""
    title = html.escape(document.title)
    sections = "".join(
        _section(section, number) for number, section in enumerate(document.sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>\n"
        f'<h1>{title}</h1>\n<p class="notice">{html.escape(document.notice)}</p>\n{sections}'
        "</main></body></html>\n"
    )


def write_page(path: Path, page: str) -> None:
    """Write a page that only its owner may read.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(path, flags, mode=0o600), "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(page)
    except OSError as error:
        raise ConfigError(
            "the page cannot be written",
            expected="a file in a folder that exists and may be written to",
            arrived=f"{path}: {error.strerror}",
            todo="give another path",
        ) from None


def _section(section: Section, number: int) -> str:
    head = f'<h2 id="part-{number}">{html.escape(section.heading)}</h2>\n'
    paragraphs = "".join(f"<p>{html.escape(text)}</p>\n" for text in section.paragraphs)
    items = "".join(f"<li>{html.escape(text)}</li>\n" for text in section.items)
    tables = "".join(_table(table) for table in section.tables)
    charts = "".join(
        _figure(chart, f"chart-{number}-{place}") for place, chart in enumerate(section.charts)
    )
    return (
        f'<section aria-labelledby="part-{number}">\n{head}{paragraphs}'
        f"{f'<ul>{items}</ul>' if items else ''}{tables}{charts}</section>\n"
    )


def _table(table: TableOfFigures) -> str:
    heads = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in others)
        + "</tr>\n"
        for first, *others in table.rows
    )
    empty = f'<tr><td colspan="{len(table.columns)}">none</td></tr>\n'
    return (
        f'<div class="wide"><table><caption>{html.escape(table.caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{rows or empty}</tbody></table></div>\n"
    )


def _figure(chart: Bars, name: str) -> str:
    numbers = TableOfFigures(
        "Numbers",
        (chart.label, "count"),
        tuple((label, text) for label, _, text in chart.counts),
    )
    caption = f"<figcaption>{html.escape(chart.title)}</figcaption>\n"
    return f"<figure>\n{caption}{_bars(chart, name)}\n{_table(numbers)}</figure>\n"


def _bars(chart: Bars, name: str) -> str:
    heights = [height for _, height, _ in chart.counts if height is not None]
    most = max([1, *heights])
    width, height = _LABEL_PX + _BARS_PX + _COUNT_PX, _ROW_PX * max(len(chart.counts), 1)
    drawn = []
    for place, (label, count, text) in enumerate(chart.counts):
        base = place * _ROW_PX + 14
        length = 0.0 if count is None else count / most * _BARS_PX
        short = label if len(label) <= _LABEL_LETTERS_MAX else label[: _LABEL_LETTERS_MAX - 1] + "…"
        drawn.append(
            f'<text x="{_LABEL_PX - 8}" y="{base}" text-anchor="end">{html.escape(short)}</text>'
            f'<rect x="{_LABEL_PX}" y="{place * _ROW_PX + 3}" width="{length:.1f}" height="14"/>'
            f'<text x="{_LABEL_PX + length + 6:.1f}" y="{base}">{html.escape(text)}</text>'
        )
    said = (
        f"Bar chart of {chart.title} with {len(chart.counts)} bars; its numbers follow as a table"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" aria-labelledby="{name}">'
        f'<title id="{name}">{html.escape(said)}</title>{"".join(drawn)}'
        f'<line x1="{_LABEL_PX}" y1="0" x2="{_LABEL_PX}" y2="{height}"/></svg>'
    )
