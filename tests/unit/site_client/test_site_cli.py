"""The `cohortium-site` command: words, JSON, exit codes, and the whole life of a site's records."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.command_line import run_command
from common.protocol.messages import ReleasedTask
from common.study.plan_file import plan_digest, read_plan
from common.study.scaling import numeric_columns
from simulations.heart_sites import heart_sites
from site_client.cli import app
from site_client.config import SitePaths
from tests.lib.enrolling import Enrolling
from tests.lib.selecting import selecting_heart_plan
from tests.lib.sites_in_process import PLAN, make_site

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    paths = Enrolling(folder).joined("northfield")
    site = heart_sites(folder / "data", uci=None)[0]
    paths.config.write_text(
        f'[site]\nid = "northfield"\ndeclared_cohort_size = 310\n{site.limits}\n{site.source}'
    )
    return paths.home


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["--home", str(home), *words]
        code = run_command(app, name="cohortium-site", arguments=arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _json(answer: tuple[int, str, str]) -> Any:
    code, out, _ = answer
    assert code == 0, answer
    return json.loads(out)


def _content(database: Path) -> str:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())


def test_approve_withdraw_pause_and_unpause_say_what_they_did(command: Command) -> None:
    words = ("approve", str(PLAN), "--as", "Dr A. Steward", "--until", "2099-12-31")
    code, out, _ = command(*words)
    assert code == 0
    assert "Dr A. Steward approves heart-disease until 2099-12-31" in out
    record = _json(command(*words, "--json"))
    assert record["plan_digest"] == plan_digest(read_plan(PLAN))
    assert record["until"] == "2099-12-31T23:59:59Z"
    assert command("pause", "heart-disease")[1].startswith("heart-disease is paused")
    assert command("unpause", "heart-disease")[0] == 0
    assert command("withdraw", "heart-disease")[1].startswith("1 approval(s)")


@pytest.mark.parametrize("until", ["31.12.2099", "2020-01-01", ""])
def test_an_approval_without_a_proper_date_is_exit_code_32(command: Command, until: str) -> None:
    code, out, err = command("approve", str(PLAN), "--as", "A", "--until", until)
    assert (code, out) == (32, "")
    assert "to do:" in err


def test_preview_shows_each_thing_that_leaves_with_its_size_and_charges_nothing(
    command: Command, home: Path
) -> None:
    before = _content(SitePaths(home).database)
    record = _json(command("preview", str(PLAN), "--json"))
    names = [item["name"] for item in record["fields"]]
    assert names[:2] == ["update", "evaluation"]
    assert record["envelope_bytes"] > sum(item["size_bytes"] for item in record["fields"][:1])
    assert record["rounds"] == 10
    assert _json(command("ledger", "--json"))["entries"] == 0
    assert _json(command("releases", "--json")) == []
    assert _content(SitePaths(home).database) == before
    assert not list(SitePaths(home).state.glob("tmp*"))
    said = " ".join(command("preview", str(PLAN))[1].split())
    assert "numbers in" in said
    assert "each month, 6 times at most: all reports together epsilon 3.0043 of your 4" in said


def test_preview_shows_the_sums_that_a_plan_with_scaling_releases_once(
    command: Command, tmp_path: Path
) -> None:
    assert _json(command("preview", str(PLAN), "--json"))["scaling"] is None
    plan = tmp_path / "scaled.toml"
    plan.write_text(PLAN.read_text() + '\n[scaling]\nkind = "dp_mean_variance"\n')
    record = _json(command("preview", str(plan), "--json"))
    numeric = len(numeric_columns(read_plan(plan)))
    assert f"{3 * numeric} noised sums" in record["scaling"]["what"]
    assert 12 * numeric < record["scaling"]["size_bytes"] < 12 * numeric + 200
    assert [item["name"] for item in record["fields"]][:2] == ["update", "evaluation"]
    assert "scaling, once" in command("preview", str(plan))[1]


def test_preview_and_check_say_what_a_selection_lets_out(command: Command, tmp_path: Path) -> None:
    plan = selecting_heart_plan(tmp_path)
    record = _json(command("preview", str(plan), "--json"))
    assert record["fields"][0]["name"] == "counts"
    assert "in 10 tables: for each candidate, its classes by outcome" in record["fields"][0]["what"]
    assert (record["rounds"], record["evaluation_rounds"]) == (2, [])
    words = " ".join(command("preview", str(plan))[1].split())
    assert "In round 2 leave noised counts of patients in 10 tables: for each pair" in words
    assert "Nothing is trained" in words
    words = " ".join(command("check", str(plan))[1].split())
    assert "the plan only selects" in words
    assert "patients who are not held out are counted twice" in words
    assert _json(command("ledger", "--json"))["entries"] == 0


def test_preview_of_data_that_do_not_fit_says_where_with_the_sources_exit_code(
    command: Command, home: Path
) -> None:
    config = SitePaths(home).config
    before = config.read_text()
    config.write_text(before.replace('column = "age"', 'column = "alter"', 1))
    code, out, err = command("preview", str(PLAN))
    config.write_text(before)
    assert (code, out) == (12, "")
    assert "line 1: column 'alter' is missing" in err


def test_the_previews_sizes_are_those_of_a_real_release(command: Command, tmp_path: Path) -> None:
    record = _json(command("preview", str(PLAN), "--json"))
    site = make_site(tmp_path)
    envelope = site.envelope(11)
    reply = site.ask(envelope)
    assert isinstance(reply, ReleasedTask)
    real = len(site.tasks.handle(envelope).envelope)
    sizes = {item["name"]: item["size_bytes"] for item in record["fields"]}
    assert sizes["update"] == len(reply.update) == 0 or sizes["update"] > 0
    assert abs(record["envelope_bytes"] - sizes["update"] - (real - len(reply.update))) < 200


def test_ledger_and_releases_answer_in_words_and_json_and_verify(command: Command) -> None:
    assert "All studies together: epsilon 0.0000 of" in command("ledger")[1]
    assert _json(command("ledger", "verify", "--json"))["ok"] is True
    assert _json(command("releases", "verify", "--json")) == {"entries": 0, "ok": True}
    assert "unbroken chain" in command("releases", "verify")[1]
    assert _json(command("releases", "list", "--json")) == []


def test_check_ends_with_1_when_something_is_to_be_done(command: Command) -> None:
    code, out, _ = command("check", str(PLAN))
    assert code == 1  # no coordinator runs
    assert "PROBLEM the coordinator answers" in out
    assert "to do:" in out
    code, out, _ = command("check", str(PLAN), "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_check_writes_one_page_for_the_steward_and_one_that_may_leave(
    command: Command, tmp_path: Path
) -> None:
    local, shareable = tmp_path / "local.html", tmp_path / "shareable.html"
    words = ("check", str(PLAN), "--html", str(local), "--shareable", str(shareable))
    _, out, _ = command(*words)
    assert f"Written: {local}" in out and f"Written: {shareable}" in out
    assert "Nothing was sent" in out and "What needs a look" in out
    assert "the counts are exact" in local.read_text()
    assert "the counts are exact" not in shareable.read_text()
    assert "disclosure control, not differential privacy" in shareable.read_text()
    record = json.loads(command(*words, "--json")[1])
    assert record["pages"] == {"html": str(local), "shareable": str(shareable)}
    quality = record["quality"]
    assert quality["patients"] == quality["rows"] > 100 and quality["concerns"] == []
    assert {"completeness", "auroc_both", "parts", "units"} <= set(quality["features"][0])


def test_a_page_without_a_plan_or_a_folder_is_one_clear_error(
    command: Command, tmp_path: Path
) -> None:
    code, out, err = command("check", "--html", str(tmp_path / "page.html"))
    assert (code, out) == (2, "") and "a page is about one plan" in err
    code, out, err = command("check", str(PLAN), "--html", str(tmp_path / "no/page.html"))
    assert (code, out) == (11, "") and "the page cannot be written" in err


def test_no_command_shows_a_patients_value(command: Command, home: Path) -> None:
    table = home.parent / "data" / "northfield.csv"
    text = table.read_text()
    line = text.splitlines()[1]
    age = line.split(",")[1]
    table.write_text(text.replace(line, line.replace(f",{age},", ",MARKED-VALUE,", 1), 1))
    codes = []
    for words in (("check", str(PLAN)), ("preview", str(PLAN)), ("check", str(PLAN), "--json")):
        code, out, err = command(*words)
        codes.append(code)
        assert "MARKED-VALUE" not in out + err
        assert "line 2" in out + err
    table.write_text(text)
    assert codes == [1, 12, 1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("approve", "no-such-plan.toml", "--as", "A", "--until", "2099-01-01"), 10),
        (("ledger", "frobnicate"), 2),
        (("check", "no-such-plan.toml"), 10),
        (("withdraw", "Not A Study"), 30),
    ],
)
def test_a_wrong_word_is_one_clear_error_with_its_exit_code(
    command: Command, words: tuple[str, ...], code: int
) -> None:
    got, out, err = command(*words)
    assert "Traceback" not in out + err
    assert got == code, (out, err)


def test_json_errors_are_json(command: Command) -> None:
    code, out, _ = command("check", "no-such-plan.toml", "--json")
    assert code == 10
    assert json.loads(out)


def test_a_folder_without_a_site_is_exit_code_20_or_11(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, codes in (
        (("agent",), {11}),
        (("ledger",), {20}),
        (("courier",), {11}),
        (("preview", str(PLAN)), {11, 23}),
    ):
        arguments = ["--home", str(tmp_path / "none"), *words]
        code = run_command(app, name="cohortium-site", arguments=arguments)
        said = capsys.readouterr()
        assert code in codes, (words, code, said.err)
        assert "to do:" in said.err
