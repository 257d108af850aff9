"""Every page shows its numbers as tables, loads nothing from elsewhere, and escapes names."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest

from server.monitor_board.signal_types import Finding, Reason, State
from server.monitor_board.web.assets import STATIC
from server.monitor_board.web.numbers import count_text, figure_text, number_text
from server.monitor_board.web.pages import PAGES, render_page, render_plain, render_site
from server.monitor_board.web.report_file import report_html
from server.monitor_board.web.selection import ROWS_PER_PAGE, Query
from server.monitor_board.web.states import SYMBOLS, WORDS
from server.monitor_board.web.views import BoardView, Signature
from tests.lib.board_views import make_site, make_study, make_view
from tests.lib.html_pages import Page

SIGNALS = "Signals of the newest reports, worst first; evidence of 1 or more is an alarm"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def _all_pages(view: BoardView) -> dict[str, str]:
    found = {
        "login": render_plain("login.html", title="Log in", inside=False, problem="no"),
        "problem": render_plain("problem.html", title="no", inside=True, problem="no"),
    }
    for study in view.studies.values():
        for page, _ in PAGES:
            found[f"{study.study_id}/{page}"] = render_page(view, study, page, Query(), stale=False)
        for site in study.sites.values():
            html = render_site(view, study, site, stale=True)
            found[f"{study.study_id}/{site.site_id}"] = html
    return found


PAGE_TEXTS = _all_pages(make_view())


@pytest.fixture(params=sorted(PAGE_TEXTS))
def html(request: pytest.FixtureRequest) -> str:
    return PAGE_TEXTS[request.param]


def test_no_page_has_an_inline_style_script_or_handler(html: str) -> None:
    page = Page(html)
    assert not page.styles
    assert not page.scripts
    for tag, attributes in page.elements:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith(("on", "hx-on", "data-hx-on"))]


def test_every_address_is_on_this_server(html: str) -> None:
    for address in Page(html).addresses():
        assert re.match(r"^(/[^/]|/$|#|\?)", address), address
    assert "//" not in re.sub(r"<!--.*?-->", "", html).replace("http://www.w3.org/2000/svg", "")


def test_every_page_has_landmarks_one_heading_and_captions(html: str) -> None:
    page = Page(html)
    tags = [tag for tag, _ in page.elements]
    for landmark in ("header", "main", "footer", "h1"):
        assert tags.count(landmark) == 1, landmark
    assert tags.count("caption") == tags.count("table")
    assert page.with_tag("html")[0]["lang"] == "en"
    assert all("scope" in attributes for attributes in page.with_tag("th"))
    assert all(item.get("role") == "img" for item in page.with_tag("svg"))
    regions = [item for _, item in page.elements if item.get("role") == "region"]
    assert all(item["aria-label"] and item["tabindex"] == "0" for item in regions)


def test_every_id_is_there_once_and_every_label_leads_to_one(html: str) -> None:
    page = Page(html)
    assert len(page.ids()) == len(set(page.ids()))
    for _, attributes in page.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in page.ids()
    inputs = [item for item in page.with_tag("input") if "id" in item]
    labels = {item.get("for") for item in page.with_tag("label")}
    assert all(item["id"] in labels for item in inputs)


def test_every_chart_stands_beside_a_table_and_a_definition(html: str) -> None:
    page = Page(html)
    figures = page.with_tag("figure")
    assert len(page.with_tag("figcaption")) == len(figures)
    assert len(page.with_tag("svg")) == len(figures)
    assert len(page.with_tag("table")) >= len(figures)


def test_the_heat_map_says_every_state_in_words_with_its_symbol_and_number() -> None:
    study = make_study()
    view = make_view(study)
    page = Page(render_page(view, study, "overview", Query(by_name=True), stale=False))
    [rows] = [rows for caption, rows in page.tables.items() if caption.startswith("Heat map")]
    assert rows[0][4:] == [column.title for column in study.columns]
    for row, shown in zip(study.rows, rows[1:], strict=True):
        assert shown[0] == row.site_id
        assert shown[1] == f"{SYMBOLS[row.state]} {WORDS[row.state]}"
        for cell, words in zip(row.cells, shown[4:], strict=True):
            number = number_text(cell.number) if cell.number and cell.number.value else ""
            assert words == f"{SYMBOLS[cell.state]} {WORDS[cell.state]}{number}"


def test_the_worst_sites_come_first_and_a_long_table_comes_in_parts() -> None:
    study = make_study(sites=120)
    view = make_view(study)
    first = Page(render_page(view, study, "overview", Query(), stale=False))
    [rows] = [rows for caption, rows in first.tables.items() if caption.startswith("Heat map")]
    assert [row[0] for row in rows[1:4]] == ["site-0002", "site-0004", "site-0003"]
    assert len(rows) == ROWS_PER_PAGE + 1
    assert "/study/stroke-outcome/overview?page=2" in first.addresses()
    last = Page(render_page(view, study, "overview", Query(page=99), stale=False))
    [rows] = [rows for caption, rows in last.tables.items() if caption.startswith("Heat map")]
    assert len(rows) == 120 - 2 * ROWS_PER_PAGE + 1


def test_a_filter_shows_only_what_it_names_and_keeps_its_words() -> None:
    study = make_study(sites=120)
    view = make_view(study)
    query = Query.parse("SITE-000", "alert", "name", "1")
    page = Page(render_page(view, study, "overview", query, stale=False))
    [rows] = [rows for caption, rows in page.tables.items() if caption.startswith("Heat map")]
    assert [row[0] for row in rows[1:]] == ["site-0002"]
    assert any(item.get("value") == "site-000" for item in page.with_tag("input"))


@pytest.mark.parametrize("page", ["-1", "0", "x", "9" * 40, "²", ""])
def test_a_page_number_that_is_none_shows_the_first_part(page: str) -> None:
    assert Query.parse("", "nothing", "", page) == Query()


def test_site_tables_hold_the_views_numbers() -> None:
    study = make_study()
    site = study.sites["site-0002"]
    page = Page(render_site(make_view(study), study, site, stale=False))
    [series] = site.series
    rows = page.tables["AUROC, Site site-0002"][1:]
    assert [row[0] for row in rows] == [point.period for point in series.points]
    assert [row[1:3] for row in rows] == [
        [number_text(point.number), figure_text(point.evidence)] for point in series.points
    ]
    assert [row[3] for row in rows] == ["–"] * (len(rows) - 1) + ["▲ ALERT"]
    plotted = [item for item in page.with_tag("tr") if "data-value" in item]
    assert [float(item["data-value"]) for item in plotted] == [
        point.number.value for point in series.points
    ]
    [signal] = page.tables[SIGNALS][1:]
    assert signal[3:7] == [
        number_text(site.signals[0].number),
        figure_text(site.signals[0].effect),
        figure_text(site.signals[0].p_value),
        figure_text(site.signals[0].evidence),
    ]


def test_model_tables_hold_the_views_numbers_and_name_a_bin_with_too_few() -> None:
    study = make_study()
    page = Page(render_page(make_view(study), study, "model", Query(), stale=False))
    [performance] = study.model.performances
    rows = page.tables["Reliability diagram in numbers"][1:]
    assert [row[2:] for row in rows] == [
        [number_text(item.observed), count_text(item.patients)] for item in performance.reliability
    ]
    assert rows[-1][2] == "insufficient data"
    roc = page.tables["ROC curve in numbers"][1:]
    assert [row[1:] for row in roc] == [
        [number_text(item.false_positive_rate), number_text(item.true_positive_rate)]
        for item in performance.roc
    ]


def test_a_suppressed_gap_keeps_its_row_in_words_and_shows_no_number() -> None:
    study = make_study(sites=5)
    page = Page(render_page(make_view(study), study, "fairness", Query(), stale=False))
    rows = page.tables["Gaps between a group and all others, in numbers"][1:]
    [kept] = [row for row in rows if "90+" in row[2]]
    assert kept[4:] == ["insufficient data", "–", "○ TOO FEW"]
    assert len(rows) == len(study.fairness.rows)
    assert page.text.count("insufficient data") == 2  # in the table and in the plot


def test_privacy_protocol_and_decisions_hold_the_views_numbers() -> None:
    study = make_study()
    view = make_view(study)
    pages = {key: Page(render_page(view, study, key, Query(), stale=False)) for key, _ in PAGES}
    [spent] = pages["privacy"].tables.values()
    assert spent[1] == ["site-0000", "3.500", "4.500", "1e-06", "2026-01: 1.9002026-02: 3.500"]
    chains = pages["protocol"].tables["Each site's chain of reports"]
    assert chains[1][2:] == [
        "active",
        "1",
        "7",
        "8",
        "2026-03",
        "25 hours before this page",
        "5",
        "6-7",
        "1",
    ]
    [refused] = pages["protocol"].tables["Envelopes that this board refused, newest first"][1:]
    assert refused[3] == "B8"
    [first, second] = pages["decisions"].tables["Decisions in the order of their chain"][1:]
    assert first[7] == "yes: 2 of 2 signed"
    assert "Ada Ruiz" in first[6] and "Jon Okoye" in first[6]
    assert second[7] == "no: 1 of 2 signed"


def test_the_same_signature_twice_puts_no_decision_in_force() -> None:
    [decision, _] = make_study().decisions
    twice = (Signature("Ada Ruiz", "11" * 8), Signature("Ada again", "11" * 8))
    assert decision.is_valid
    assert not dataclasses.replace(decision, signatures=twice).is_valid


def test_hostile_names_are_shown_as_they_are_and_never_as_markup() -> None:
    study = make_study(title=HOSTILE)
    row = dataclasses.replace(study.rows[0], last_period=HOSTILE, reasons=(Reason.DATA,))
    draw_site = make_site("site-0000", State.ALERT, 3, random.Random(1))
    signal = dataclasses.replace(draw_site.signals[0], metric=HOSTILE, words=HOSTILE)
    series = dataclasses.replace(draw_site.series[0], title=HOSTILE, definition=HOSTILE)
    finding = Finding(Reason.DATA, False, HOSTILE, HOSTILE, HOSTILE)
    site = dataclasses.replace(
        draw_site, signals=(signal,), series=(series,), findings=(finding,), owed=(HOSTILE,)
    )
    gap = dataclasses.replace(study.fairness.rows[0], where=HOSTILE, level=HOSTILE)
    decision = dataclasses.replace(
        study.decisions[0], reason=HOSTILE, signatures=(Signature(HOSTILE, HOSTILE),)
    )
    hostile = dataclasses.replace(
        study,
        rows=(row,),
        sites={"site-0000": site},
        fairness=dataclasses.replace(study.fairness, rows=(gap,)),
        decisions=(decision,),
    )
    view = dataclasses.replace(make_view(hostile), board=HOSTILE)
    for html in [*_all_pages(view).values(), report_html(view)]:
        page = Page(html)
        assert not page.scripts
        assert not page.with_tag("img")
        assert not [tag for tag, item in page.elements if "onerror" in item]
    assert HOSTILE in Page(render_page(view, hostile, "decisions", Query(), stale=False)).text


def test_a_page_says_when_newer_reports_are_being_computed() -> None:
    study = make_study()
    view = make_view(study)
    assert "being computed" in render_page(view, study, "overview", Query(), stale=True)
    assert "being computed" not in render_page(view, study, "overview", Query(), stale=False)


def _colours(css: str) -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    return [dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_aa_contrast_in_light_dark_and_print() -> None:
    themes = _colours((STATIC / "board.css").read_text())
    assert len(themes) == 3
    states = ("ok", "watch", "alert", "few", "silent")
    for theme in themes:
        pairs = [(f"--{state}-ink", f"--{state}-ground") for state in states]
        pairs += [(f"--{state}-ink", ground) for state in states for ground in ("--paper", "--box")]
        pairs += [
            (ink, ground)
            for ink in ("--ink", "--muted", "--accent")
            for ground in ("--paper", "--box")
        ]
        for ink, ground in pairs:
            assert _contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        assert _contrast(theme["--rule"], theme["--paper"]) >= 3.0
