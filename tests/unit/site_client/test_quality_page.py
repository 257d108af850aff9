"""The page: static, self-contained, escaped, readable by eye, by ear, in the dark and on paper."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from common.errors import ConfigError
from site_client.quality.document import Document, plain_text
from site_client.quality.page import page_of, write_page
from site_client.quality.report import QualityReport
from site_client.quality.terminal import print_report
from tests.lib.plans import make_document
from tests.unit.site_client.test_quality import PULSE, clean_rows, report_of

EVIL = "<script>alert(1)</script>&amp;[red]\" onload='x"
VOID = {"meta", "!doctype"}


class Reader(HTMLParser):
    """Every element of a page with its attributes and text; refuses what is not well nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.found if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    features = make_document()["features"]
    features[2]["levels"] = ["female", "male", EVIL]
    return report_of(
        tmp_path_factory.mktemp("table"),
        clean_rows(),
        features=[*features, PULSE],
        study__title=f"A study {EVIL}",
    )


@pytest.fixture(scope="module", params=["local", "shareable"])
def document(request: pytest.FixtureRequest, report: QualityReport) -> Document:
    return report.local() if request.param == "local" else report.shareable()


def test_a_page_is_well_nested_and_its_references_are_whole(document: Document) -> None:
    page = Reader(page_of(document))
    names = [attributes["id"] for _, attributes, _ in page.found if "id" in attributes]
    assert len(names) == len(set(names)) > 5
    asked = [item.get("aria-labelledby") for _, item, _ in page.found if "aria-labelledby" in item]
    assert set(asked) <= set(names)
    assert page.of("html") == [{"lang": "en"}]


def test_a_page_loads_nothing_and_can_run_nothing(document: Document) -> None:
    text = page_of(document)
    page = Reader(text)
    assert {tag for tag, _, _ in page.found} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "section", "p"),
        *("ul", "li", "div", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("figure", "figcaption", "svg", "rect", "text", "line"),
    }
    for _, attributes, _ in page.found:
        for name in attributes:
            assert not name.startswith("on") and name not in {"src", "href", "style", "action"}
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [
        item["content"]
        for item in page.of("meta")
        if item.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None and policy.startswith(
        f"default-src 'none'; style-src 'sha256-{digest}'"
    )


def test_a_pages_foreign_text_is_text(document: Document) -> None:
    page = page_of(document)
    assert "<script" not in page and "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;[red]" in page


def test_every_plot_has_a_name_and_its_numbers_as_a_table(document: Document) -> None:
    text = page_of(document)
    charts = [chart for section in document.sections for chart in section.charts]
    figures = re.findall(r"<figure>.*?</figure>", text, re.S)
    assert len(figures) == len(charts) > 0
    for figure, chart in zip(figures, charts, strict=True):
        plot = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", figure, re.S)[0])
        space = "{http://www.w3.org/2000/svg}"
        title = plot.find(f"{space}title")
        assert plot.get("role") == "img" and title is not None
        assert chart.title in (title.text or "")
        widths = [float(bar.get("width", "nan")) for bar in plot.iter(f"{space}rect")]
        heights = [height or 0 for _, height, _ in chart.counts]
        most = max([1, *heights])
        assert widths == pytest.approx([height / most * max(widths) for height in heights], abs=0.1)
        assert figure.count('<th scope="row">') == len(chart.counts)


def test_every_table_has_a_caption_and_heads(document: Document) -> None:
    for table in re.findall(r"<table>.*?</table>", page_of(document), re.S):
        assert table.count("<caption>") == 1 and '<th scope="col">' in table
        columns = table.count('<th scope="col">')
        for row in re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.S):
            assert row.count("<th") + row.count("<td") in (columns, 1)


def test_a_page_follows_the_readers_colours_and_prints(document: Document) -> None:
    style = page_of(document).split("<style>")[1]
    assert "prefers-color-scheme:dark" in style and "@media print" in style


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for name, code in re.findall(r"--(\w+):#([0-9a-f]{3,6})", block):
        digits = code if len(code) == 6 else "".join(letter * 2 for letter in code)
        found[name] = tuple(int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    return found


def luminance(colour: tuple[float, ...]) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_contrast_is_that_of_wcag_in_light_dark_and_print(report: QualityReport) -> None:
    style = page_of(report.local()).split("<style>")[1].split("</style>")[0]
    blocks = re.findall(r":root\{[^}]*\}", style)
    assert len(blocks) == 3
    for block in blocks:
        found = colours(block)
        paper = luminance(found["paper"])
        for name, least in (("ink", 7.0), ("bar", 3.0), ("line", 3.0)):
            light, dark = sorted((luminance(found[name]), paper), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (name, block)


def test_a_sources_control_characters_and_turned_writing_reach_no_terminal_and_no_page() -> None:
    assert plain_text("mg/dL \x1b[31m\u202e\n") == "mg/dL \ufffd[31m\ufffd\ufffd"


def test_only_its_owner_may_read_a_page_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("x" * 100)
    path.chmod(0o644)
    write_page(path, "<p>new</p>")
    assert path.read_text() == "<p>new</p>"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the page cannot be written"):
        write_page(tmp_path / "no" / "such" / "folder.html", "")


def test_foreign_text_on_a_terminal_is_neither_markup_nor_control(document: Document) -> None:
    stream = io.StringIO()
    print_report(Console(file=stream, width=200, force_terminal=False), document)
    shown = stream.getvalue()
    assert "\x1b" not in shown
    if any("has the level" in item for section in document.sections for item in section.items):
        assert "[red]" in shown
