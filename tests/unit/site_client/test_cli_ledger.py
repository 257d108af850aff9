"""`cohortium-site ledger`: tables, words, export and offline verification after a real study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.command_line import run_command
from common.protocol.messages import ReleasedTask
from server.cli import app as coordinator_app
from simulations.heart_sites import heart_sites
from site_client.cli import app
from tests.lib.sites_in_process import make_site

ROUNDS = 3
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose study stopped after three of ten rounds."""
    folder = tmp_path_factory.mktemp("ledger")
    site = make_site(folder)
    for number in range(1, ROUNDS + 1):
        assert isinstance(site.ask(site.envelope(number)), ReleasedTask)
    site.paths.keys.mkdir(mode=0o700)
    site.keys.signing.write(site.paths.signing_key)
    files = heart_sites(folder / "data", uci=None)[0]
    site.paths.config.write_text(
        f'[site]\nid = "northfield"\ndeclared_cohort_size = 310\n{files.limits}\n{files.source}'
    )
    return folder


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str, program: Any = app, at: Path = home) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["--home", str(at), "ledger", *words]
        code = run_command(program, name="cohortium", arguments=arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _json(answer: tuple[int, str, str]) -> Any:
    code, out, _ = answer
    assert code == 0, answer
    return json.loads(out)


def test_show_tells_promise_and_use_of_a_study_that_stopped_early(command: Command) -> None:
    record = _json(command("show", "--json"))
    (study,) = record["studies"]
    assert study["study_id"] == "heart-disease"
    assert study["releases"] == ROUNDS
    assert study["epsilon_spent"] < 0.6 * study["epsilon_promised"]
    assert 0.99 * study["epsilon_promised"] < study["epsilon_committed"] <= 3.0
    assert record["epsilon_total_spent"] < record["epsilon_total_committed"] <= 3.0
    assert record["composition"] == "planned"
    assert record["entries"] == 1 + 2 * ROUNDS
    words = command("show")[1]
    assert "is promised" in words
    assert "The unit is one patient" in words


def test_show_by_population_and_by_period(command: Command) -> None:
    populations = _json(command("show", "--by", "population", "--json"))["populations"]
    assert [item["share"] for item in populations] == [0.25, 0.75]
    assert populations[0]["epsilon_spent"] == 0.0  # no evaluation was due yet
    year, month = _json(command("show", "--by", "period", "--json"))["periods"]
    assert month["period"].startswith(year["period"] + "-")
    assert month["releases"] == year["releases"] == ROUNDS
    assert month["epsilon_spent"] == populations[1]["epsilon_spent"]
    assert "25.0%" in command("show", "--by", "population")[1]
    assert "Periods compose" in command("show", "--by", "period")[1]


def test_explain_says_it_in_words_for_one_study_or_all(command: Command) -> None:
    code, words, _ = command("explain", "heart-disease")
    assert code == 0
    for heading in ("What is protected", "Study heart-disease", "What is not covered"):
        assert heading in words
    assert command("explain")[1] == words
    record = _json(command("explain", "--json"))
    assert [item["study_id"] for item in record["studies"]] == ["heart-disease"]
    assert record["paragraphs"][0]["heading"] == "What is protected"


def test_explaining_a_study_that_is_not_there_is_one_clear_error(command: Command) -> None:
    code, _, err = command("explain", "stroke")
    assert code == 41
    assert "heart-disease" in err


def test_an_adaptive_site_shows_its_filter(command: Command, home: Path) -> None:
    config = home / "site.toml"
    before = config.read_text()
    config.write_text(before.replace("epsilon_total", 'composition = "adaptive"\nepsilon_total', 1))
    record = _json(command("show", "--json"))
    words = command("show")[1]
    config.write_text(before)
    assert 0 < record["filter_committed"] < record["filter_budget"]
    assert f"at order {record['filter_order']}" in words


def test_an_export_verifies_without_the_site_by_either_command(
    command: Command, tmp_path: Path
) -> None:
    file, nowhere = tmp_path / "ledger.json", tmp_path / "nowhere"
    exported = _json(command("export", "--out", str(file), "--json"))
    shown = _json(command("show", "--json"))
    assert exported["entries"] == shown["entries"]
    for program in (app, coordinator_app):
        record = _json(command("verify", str(file), "--json", program=program, at=nowhere))
        assert record["head"] == exported["head"] == shown["head"]
        assert record["studies"] == shown["studies"]
        assert record["total"]["epsilon_committed"] == shown["epsilon_total_committed"]
        assert record["is_key_known"] is False
        own = ("--fingerprint", record["fingerprint"])
        known = _json(command("verify", str(file), *own, "--json", program=program, at=nowhere))
        assert known["is_key_known"] is True
        code, words, _ = command("verify", str(file), program=program, at=nowhere)
        assert code == 0
        assert "Compare it with the site by telephone" in words
    assert not nowhere.exists()


def test_a_changed_export_is_exit_code_41_by_either_command(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.json"
    assert command("export", "--out", str(file))[0] == 0
    file.write_text(file.read_text().replace("heart-disease", "heart-decease", 1))
    for program in (app, coordinator_app):
        code, out, err = command("verify", str(file), program=program, at=tmp_path / "nowhere")
        assert (code, out) == (41, "")
        assert "does not verify" in err
        assert "to do:" in err


def test_an_export_holds_no_number_of_any_patient(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "ledger.json"
    assert command("export", "--out", str(file))[0] == 0
    record = json.loads(file.read_text())["record"]
    fields = {key for entry in record["entries"] for key in json.loads(entry)}
    assert fields == {
        "at_s",
        "delta",
        "digest",
        "epsilon",
        "kind",
        "mechanisms",
        "payload_digest",
        "plan_digest",
        "planned",
        "previous",
        "release_id",
        "round_number",
        "sequence",
        "study_id",
    }
