"""`plan catalogue` and `plan show`, as a study's author uses them."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from common.study.catalogue.entries import read_catalogue
from common.study.catalogue.page import catalogue_page
from common.study.plan_file import parse_plan, plan_digest, read_plan
from server.cli import app
from tests.lib.plans import EXAMPLES

PLAN = EXAMPLES / "in-hospital-death.toml"


def run(*words: str) -> str:
    answer = CliRunner().invoke(app, ["plan", *words])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_the_catalogue_is_listed_whole_group_after_group() -> None:
    said = run("catalogue")
    catalogue = read_catalogue()
    for entry in catalogue.entries.values():
        assert f"  {entry.name} " in said
    for title in catalogue.groups.values():
        assert title in said
    assert f"{len(catalogue.entries)} of {len(catalogue.entries)} entries" in said


def test_a_search_looks_at_names_words_and_codes() -> None:
    assert "heart_rate" in run("catalogue", "--search", "Heart RATE")
    by_code = json.loads(run("catalogue", "--search", "LOINC/2160-0", "--json"))
    assert [entry["name"] for entry in by_code["entries"]] == ["creatinine"]
    assert "creatinine.last" in by_code["entries"][0]["terms"]
    assert by_code["version"] == read_catalogue().version
    assert "0 of" in run("catalogue", "--search", "no such thing")


def test_the_page_is_what_the_command_prints() -> None:
    assert run("catalogue", "--markdown") == catalogue_page(read_catalogue())


def test_a_shown_plan_has_the_digest_of_its_file() -> None:
    shown = parse_plan(run("show", str(PLAN)).encode(), source="shown")
    assert plan_digest(shown) == plan_digest(read_plan(PLAN))


def test_the_example_takes_from_the_catalogue_and_meets_every_rule() -> None:
    assert "meets every rule" in run("check", str(PLAN))
    assert len(read_plan(PLAN).features) == 37
