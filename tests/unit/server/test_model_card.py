"""The model card: every fact of the lineage, and nothing that a browser would run."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE
from server.model_card import ModelCard, render_card
from server.study_report import report_study
from tests.lib.memory_channel import Consortium, Lie, make_consortium, refusal_lie
from tests.lib.plans import make_plan

PLANTED = (
    '<script>alert("4711")</script>',
    "<img src=x onerror=alert(4711)>",
    "</title><script>alert(4711)</script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "[press](javascript:alert(4711))",
    "a | b ` c",
    "&lt;script&gt;",
    "[press](https://example.org/4711)",
    "![picture](https://example.org/4711.png)",
    "<https://example.org/4711>",
    "**bold** _and_ \\* more",
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "code"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def _card(consortium: Consortium) -> ModelCard:
    version = consortium.books.registry.all_versions()[-1]
    study = consortium.books.register.find(consortium.study_id)
    return render_card(version, study, report_study(consortium.books, consortium.study_id))


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader


def _finished(folder: Path, **changes: Any) -> Consortium:
    consortium = make_consortium(folder, make_plan(training__rounds=2, **changes))
    consortium.site("north").lies[2] = Lie(refusal_lie("R13"))
    consortium.run()
    return consortium


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return _finished(tmp_path_factory.mktemp("card"))


def test_both_forms_say_the_same_facts(consortium: Consortium) -> None:
    card = _card(consortium)
    version = consortium.books.registry.all_versions()[-1]
    text = _read(card.html).text
    for fact in (
        version.version,
        str(consortium.study.plan_digest),
        "A small study",
        "To test",
        "epsilon 3, delta 0.0001",
        "LOINC/8480-6",
        "90 to 200",
        "female / male",
        "north: refused-by-site R13",
        "logistic regression, fedavg on the weighted mean, 2 rounds of 3 local steps",
        UNIT_SENTENCE,
        NOT_COVERED_SENTENCE,
        "not a medical device",
    ):
        assert fact in card.markdown
        assert fact in text


def test_each_site_has_its_patients_as_a_band_its_epsilon_and_its_auroc(
    consortium: Consortium,
) -> None:
    card = _card(consortium)
    report = report_study(consortium.books, consortium.study_id)
    for site in report.sites:
        [row] = [
            line
            for line in card.markdown.splitlines()
            if line.startswith(f"| {site.site_id} | {site.patients}")
        ]
        assert f"| {site.epsilon_spent:.3f} | {site.epsilon_remaining:.3f} |" in row
        assert site.auroc is not None
        assert f"| {site.site_id} | {site.auroc.value:.3f} (" in card.markdown
    assert report.pooled is not None
    assert f"| all sites | {report.pooled.value:.3f} (" in card.markdown


def test_what_cannot_be_told_is_insufficient_data(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, make_plan(training__rounds=2))
    for site in consortium.sites.values():
        for number in (1, 2, 3):
            site.lies[number] = Lie(
                lambda reply: (
                    reply
                    if reply.evaluation is None
                    else _replace_counts(reply, ((0,) * 10, (0,) * 10))
                )
            )
    consortium.run()
    assert "| all sites | insufficient data |" in _card(consortium).markdown


def _replace_counts(reply: Any, counts: Any) -> Any:
    from dataclasses import replace

    return replace(reply, evaluation=replace(reply.evaluation, counts=counts))


def test_the_html_has_no_script_and_asks_the_network_for_nothing(consortium: Consortium) -> None:
    card = _card(consortium)
    reader = _read(card.html)
    assert reader.tags == TAGS
    assert reader.attributes <= {"lang", "charset", "http-equiv", "content"}
    assert "default-src 'none'" in card.html
    assert "script" not in card.html


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_markup_stays_text(planted: str, tmp_path: Path) -> None:
    consortium = _finished(
        tmp_path,
        study__title=f"T {planted}",
        study__purpose=f"P {planted}",
        study__lawful_basis=f"L {planted}",
        cohort__description=f"C {planted}",
        label__description=f"S {planted}",
    )
    card = _card(consortium)
    reader = _read(card.html)
    assert reader.tags == TAGS
    assert reader.attributes <= {"lang", "charset", "http-equiv", "content"}
    assert "T 49" not in reader.text
    # A pipe would break a table, a backtick a code span: both are replaced, all else is kept;
    # "<" is an entity in the Markdown, since a viewer may take it for HTML of its own.
    kept = planted.replace("|", "/").replace("`", "'")
    for letter in "TPLCS":
        assert f"{letter} {kept.replace('<', '&lt;')}" in card.markdown
        assert f"{letter} {kept}" in reader.text


@pytest.mark.parametrize(
    "purpose", ["[a]: https://example.org", "- item", "1. item", "> quote", "---", "```", "~~~"]
)
def test_a_purpose_is_one_paragraph_whatever_it_begins_with(purpose: str, tmp_path: Path) -> None:
    reader = _read(_card(_finished(tmp_path, study__purpose=purpose)).html)
    assert reader.tags == TAGS
    assert purpose.replace("`", "'") in reader.text


def test_every_table_row_has_its_columns(tmp_path: Path) -> None:
    consortium = _finished(tmp_path, study__title="a | b\n| c |", study__purpose="x\n\n# y\n| z |")
    lines = _card(consortium).markdown.splitlines()
    assert lines[0] == "# Model card: a / b / c /"
    assert "x # y / z /" in lines
