"""The `cohortium-coordinator` command: words, JSON and exit codes."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from common.command_line import run_command
from common.protocol.enrolment import read_enrolment, write_request
from common.study.plan_file import plan_digest, read_plan
from common.study.plan_toml import plan_toml
from server.cli import app
from tests.lib.enrolment import enrolment_request
from tests.lib.memory_channel import Consortium, copy_consortium, make_consortium
from tests.lib.messages import Party
from tests.lib.plans import EXAMPLES
from tests.lib.selecting import selecting_plan

PLAN = EXAMPLES / "heart-disease.toml"
PARTY = Party.fresh()
TOLD = ("--fingerprint", PARTY.signing.fingerprint, "--cohort-size-max", "400")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command on the coordinator below `tmp_path`; return code, stdout and stderr."""
    home = tmp_path / "coordinator"

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(
            app, name="cohortium-coordinator", arguments=["--home", str(home), *words]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def enrolled(tmp_path: Path) -> Path:
    return copy_consortium(tmp_path).home


@pytest.fixture
def finished(tmp_path: Path) -> Consortium:
    consortium = make_consortium(tmp_path)
    consortium.run()
    return consortium


def _request(tmp_path: Path, site_id: str = "lakeside") -> Path:
    path = tmp_path / f"{site_id}-request.json"
    write_request(path, enrolment_request(PARTY, tmp_path, site_id), PARTY.signing)
    return path


def test_init_makes_a_coordinator_and_tells_the_fingerprint(
    command: Command, tmp_path: Path
) -> None:
    code, out, _ = command("init", "--name", "Heart network", "--host", "127.0.0.1", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["home"] == str(tmp_path / "coordinator")
    code, out, _ = command("fingerprint")
    assert out.strip() == record["fingerprint"]
    assert stat.S_IMODE((tmp_path / "coordinator" / "keys").stat().st_mode) == 0o700
    assert command("sites", "--json")[1].strip() == "[]"


def test_init_twice_is_refused_with_its_exit_code(command: Command) -> None:
    words = ("init", "--name", "Heart network", "--host", "127.0.0.1")
    assert command(*words)[0] == 0
    code, out, err = command(*words)
    assert (code, out) == (11, "")
    assert "to do:" in err
    code, out, _ = command(*words, "--json")
    assert code == 11
    assert json.loads(out)["error"] == "ConfigError"


def test_init_prints_no_secret(command: Command, tmp_path: Path) -> None:
    _, out, err = command("init", "--name", "Heart network", "--host", "127.0.0.1")
    for secret in (tmp_path / "coordinator" / "keys").iterdir():
        assert secret.read_text(encoding="ascii").split()[-1] not in out + err


@pytest.mark.parametrize("words", [("sites",), ("status",), ("models", "list"), ("models", "log")])
def test_without_a_coordinator_a_command_says_to_init(
    words: tuple[str, ...], command: Command
) -> None:
    code, out, err = command(*words)
    assert (code, out) == (11, "")
    assert "cohortium-coordinator init" in err


def test_admit_writes_the_enrolment_file_and_lists_the_site(
    command: Command, enrolled: Path, tmp_path: Path
) -> None:
    answer = tmp_path / "lakeside.json"
    code, out, _ = command("admit", str(_request(tmp_path)), *TOLD, "--out", str(answer), "--json")
    assert code == 0
    assert json.loads(out) == {
        "site_id": "lakeside",
        "fingerprint": PARTY.signing.fingerprint,
    }
    assert read_enrolment(answer).site_id == "lakeside"
    listed = json.loads(command("sites", "--json")[1])
    assert [site["site_id"] for site in listed] == ["east", "lakeside", "north", "south", "west"]
    assert all(site["active"] for site in listed)
    assert enrolled.is_dir()


def test_admit_needs_the_fingerprint_from_the_telephone(
    command: Command, enrolled: Path, tmp_path: Path
) -> None:
    answer = enrolled / "lakeside.json"
    request = str(_request(tmp_path))
    size = ("--cohort-size-max", "400")
    assert command("admit", request, *size, "--out", str(answer))[0] == 2
    assert command("admit", request, *TOLD[:2], "--out", str(answer))[0] == 2
    told = ("--fingerprint", Party.fresh().signing.fingerprint)
    code, _, err = command("admit", request, *told, *size, "--out", str(answer))
    assert code == 23
    assert PARTY.signing.fingerprint in err
    assert not answer.exists()
    assert len(json.loads(command("sites", "--json")[1])) == 4
    code, out, _ = command("admit", request, *TOLD, "--out", str(answer))
    assert code == 0
    assert "at most 400 patients" in out


@pytest.mark.usefixtures("enrolled")
def test_cohort_changes_what_a_site_may_declare(command: Command) -> None:
    code, out, _ = command("cohort", "north", "12345")
    assert code == 0
    assert "12345" in out
    sizes = {
        site["site_id"]: site["cohort_size_max"]
        for site in json.loads(command("sites", "--json")[1])
    }
    assert sizes == {"east": 10_000, "north": 12_345, "south": 10_000, "west": 10_000}
    assert "12345" in command("sites")[1]
    assert command("cohort", "north", "0")[0] == 23
    assert command("cohort", "unheard-of", "100")[0] == 23


@pytest.mark.parametrize(
    "name", ["[/x]", "North [strike]General[/strike]", "[link=https://e.example]St Mary[/link]"]
)
def test_a_sites_name_is_shown_as_it_is_and_never_as_markup(
    name: str, command: Command, enrolled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    request = enrolment_request(PARTY, tmp_path, "lakeside").model_copy(
        update={"organisation": name}
    )
    path = tmp_path / "request.json"
    write_request(path, request, PARTY.signing)
    assert command("admit", str(path), *TOLD, "--out", str(enrolled / "a.json"))[0] == 0
    code, out, _ = command("sites")
    assert code == 0
    assert name in out


def test_admit_refuses_a_changed_request(command: Command, enrolled: Path, tmp_path: Path) -> None:
    path = _request(tmp_path)
    path.write_text(path.read_text().replace("North General", "South General"))
    code, _, err = command("admit", str(path), *TOLD, "--out", str(enrolled / "x.json"))
    assert code in (21, 23)
    assert "to do:" in err
    assert not (enrolled / "x.json").exists()


def test_admit_refuses_an_id_that_is_taken(
    command: Command, enrolled: Path, tmp_path: Path
) -> None:
    path = _request(tmp_path, "north")
    assert command("admit", str(path), *TOLD, "--out", str(enrolled / "x.json"))[0] == 23


@pytest.mark.usefixtures("enrolled")
def test_suspend_and_readmit_are_seen_in_the_list(command: Command) -> None:
    assert command("suspend", "north")[0] == 0
    active = {site["site_id"]: site["active"] for site in json.loads(command("sites", "--json")[1])}
    assert active == {"east": True, "north": False, "south": True, "west": True}
    assert "suspended" in command("sites")[1]
    assert command("readmit", "north")[0] == 0
    assert all(site["active"] for site in json.loads(command("sites", "--json")[1]))
    assert command("suspend", "unheard-of")[0] == 23
    assert command("suspend", "Not An Id")[0] == 30


def test_plan_check_and_show_say_what_reports_cost_and_the_larger_local_epsilon_of_a_sum(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "sum.toml"
    text = PLAN.read_text().replace("[monitoring]\n", '[monitoring]\nmode = "sum"\n', 1)
    path.write_text(text)
    sealed = json.loads(command("plan", "check", str(PLAN), "--json")[1])["monitoring"]
    summed = json.loads(command("plan", "check", str(path), "--json")[1])["monitoring"]
    assert sealed["planned"] == summed["planned"] == 1.0
    assert 0.99 < sealed["at_site"] <= 1.0
    assert 2.0 < summed["at_site"] < summed["of_all"]
    for word in ("check", "show"):
        said = command("plan", word, str(path))[1]
        assert f"epsilon {summed['at_site']:.3f} of one period against both aggregators" in said
        assert "aggregators" not in command("plan", word, str(PLAN))[1]
    path.write_text(command("plan", "show", str(path))[1])
    again = json.loads(command("plan", "check", str(path), "--json")[1])
    assert again["monitoring"] == summed


def test_a_plan_is_checked_in_json(command: Command) -> None:
    code, out, _ = command("plan", "check", str(PLAN), "--json")
    record = json.loads(out)
    assert code == 0
    assert record["digest"] == plan_digest(read_plan(PLAN))
    assert record["study"] == "heart-disease"
    assert record["noise_multiplier"] > 0
    assert record["parameters"] > record["columns"]
    assert command("plan", "digest", str(PLAN))[1].strip() == record["digest"]


def test_a_plan_is_checked_in_words(command: Command) -> None:
    code, out, _ = command("plan", "check", str(PLAN))
    assert code == 0
    assert "meets every rule" in out
    assert "epsilon" in out


def test_a_wrong_plan_is_told_every_problem_at_once(command: Command, tmp_path: Path) -> None:
    text = PLAN.read_text(encoding="utf-8")
    wrong = text.replace("rounds = 10", "rounds = 0").replace("quorum = 3", "quorum = 0")
    path = tmp_path / "wrong.toml"
    path.write_text(wrong, encoding="utf-8")
    code, out, err = command("plan", "check", str(path), "--json")
    assert (code, err) == (10, "")
    assert {problem["path"] for problem in json.loads(out)["problems"]} >= {
        "training.rounds",
        "training.quorum",
    }
    code, out, err = command("plan", "check", str(path))
    assert (code, out) == (10, "")
    assert "training.rounds" in err
    assert "training.quorum" in err


def test_a_plan_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    code, _, err = command("plan", "check", str(tmp_path / "none.toml"))
    assert code == 10
    assert "none.toml" in err


def test_the_schema_of_a_plan_is_json(command: Command) -> None:
    code, out, _ = command("plan", "schema")
    assert code == 0
    assert "properties" in json.loads(out)


@pytest.mark.usefixtures("finished")
def test_status_tells_a_study_and_all_studies(command: Command) -> None:
    code, out, _ = command("status", "small-study", "--json")
    one = json.loads(out)
    assert code == 0
    assert (one["state"], len(one["sites"])) == ("finished", 4)
    assert json.loads(command("status", "--json")[1]) == [one]
    code, out, _ = command("status")
    assert code == 0
    assert "small-study" in out
    assert "east" in out
    assert command("watch", "small-study")[0] == 0
    assert command("status", "unheard-of")[0] == 52


def test_status_without_a_study_says_what_to_do(command: Command, enrolled: Path) -> None:
    assert enrolled.is_dir()
    assert json.loads(command("status", "--json")[1]) == []
    assert "launch" in command("status")[1]


@pytest.mark.usefixtures("finished")
def test_a_finished_study_is_neither_stopped_nor_resumed(command: Command) -> None:
    assert command("stop", "small-study")[0] == 52
    assert command("resume", "small-study")[0] == 52


def test_a_running_study_is_stopped_once(command: Command, tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path)
    assert command("resume", "small-study")[0] == 52
    assert command("stop", "small-study")[0] == 0
    report = json.loads(command("status", consortium.study_id, "--json")[1])
    assert (report["state"], report["reason"]) == ("stopped", "stopped by a person")


def _versions(command: Command) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = json.loads(command("models", "list", "--json")[1])
    return versions


@pytest.mark.usefixtures("finished")
def test_models_are_promoted_rolled_back_and_logged(command: Command) -> None:
    first, *_, last = (item["version"] for item in _versions(command))
    decision = ("--as", "Dr. North", "--reason", "AUROC")
    assert command("models", "promote", first[:8], *decision)[0] == 0
    assert command("models", "promote", last, *decision)[0] == 0
    assert command("models", "promote", last, *decision)[0] == 53
    aliases = {item["alias"]: item["version"] for item in _versions(command) if item["alias"]}
    assert aliases == {"champion": last, "previous": first}
    assert command("models", "rollback", *decision)[0] == 0
    log = json.loads(command("models", "log", "--json")[1])
    assert [(item["action"], item["version"]) for item in log] == [
        ("promote", first),
        ("promote", last),
        ("rollback", first),
    ]
    code, out, _ = command("models", "log")
    assert code == 0
    assert "every signature" in out
    assert "champion" in command("models", "list")[1]


@pytest.mark.usefixtures("finished")
def test_a_persons_name_and_reason_are_shown_as_they_are(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    version = _versions(command)[0]["version"]
    decision = ("--as", "Dr. [/x] North", "--reason", "[strike]no[/strike] [link=x]")
    assert command("models", "promote", version, *decision)[0] == 0
    code, out, _ = command("models", "log")
    assert code == 0
    assert "Dr. [/x] North" in out
    assert "[strike]no[/strike] [link=x]" in out


def test_a_version_is_shown_exported_and_described(
    command: Command, finished: Consortium, tmp_path: Path
) -> None:
    version = finished.final_version
    shown = json.loads(command("models", "show", version[:10])[1])
    assert shown["version"] == version
    assert shown["lineage"]["title"] == "A small study"
    out = tmp_path / "model.safetensors"
    assert command("models", "export", version, "--out", str(out))[0] == 0
    assert set(safetensors.numpy.load_file(out)) == {"linear.weight", "linear.bias"}
    assert command("models", "card", version, "--out", str(tmp_path / "card"))[0] == 0
    assert "A small study" in (tmp_path / "card" / "card.md").read_text(encoding="utf-8")
    assert "<h1>" in (tmp_path / "card" / "card.html").read_text(encoding="utf-8")
    assert command("models", "show", "000000")[0] == 53


def test_a_changed_model_is_not_exported(
    command: Command, finished: Consortium, tmp_path: Path
) -> None:
    version = finished.final_version
    (finished.paths.models / f"{version}.safetensors").write_bytes(b"other")
    out = tmp_path / "model.safetensors"
    assert command("models", "export", version, "--out", str(out))[0] == 63
    assert not out.exists()


@pytest.mark.parametrize("words", [("no-such-command",), ("init",), ("admit",), ("plan", "check")])
def test_words_that_are_not_understood_end_with_2(words: tuple[str, ...], command: Command) -> None:
    assert command(*words)[0] == 2


def test_launching_without_a_superlink_says_so_and_resume_is_possible(
    command: Command, enrolled: Path
) -> None:
    assert enrolled.is_dir()
    code, _, err = command("launch", str(PLAN))
    assert code == 62
    assert "up" in err
    assert json.loads(command("status", "heart-disease", "--json")[1])["state"] == "registered"


@pytest.fixture
def selecting(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path, selecting_plan())


@pytest.fixture
def selecting_file(tmp_path: Path) -> Path:
    path = tmp_path / "choose.toml"
    plan = selecting_plan()
    path.write_text(plan_toml(plan))
    assert plan_digest(read_plan(path)) == plan_digest(plan)
    return path


def test_a_plan_that_selects_is_not_launched_and_another_does_not_select(
    command: Command, selecting: Consortium, selecting_file: Path
) -> None:
    assert selecting.study.plan.selection is not None
    code, _, err = command("launch", str(selecting_file))
    assert code == 10
    assert "cohortium-coordinator select" in err
    assert command("plan", "calibrate", str(selecting_file))[0] == 10
    code, _, err = command("select", str(PLAN))
    assert code == 10
    assert "[selection]" in err


def test_select_says_how_far_the_counts_are(
    command: Command, selecting: Consortium, selecting_file: Path
) -> None:
    code, out, _ = command("select", str(selecting_file))
    assert code == 0
    assert "0 of 2 counts" in out
    record = json.loads(command("select", str(selecting_file), "--json")[1])
    assert record["state"] == "running"
    assert record["digest"] == selecting.study.plan_digest


def test_select_ranks_and_writes_the_shortened_plan_and_never_over_a_file(
    command: Command, selecting: Consortium, selecting_file: Path, tmp_path: Path
) -> None:
    selecting.run()
    short, table = tmp_path / "short.toml", tmp_path / "ranking.csv"
    words = ("select", str(selecting_file), "--out", str(short), "--table", str(table))
    code, out, _ = command(*words)
    assert code == 0
    assert "stays in their ledgers" in " ".join(out.split())
    record = json.loads(command("select", str(selecting_file), "--json")[1])
    kept = [item["feature"] for item in record["candidates"] if item["kept"]]
    assert "sex" in kept
    assert record["sites"] == ["east", "north", "south", "west"]
    assert sorted(item.name for item in read_plan(short).features) == sorted(kept)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["feature"] for row in rows] == [item["feature"] for item in record["candidates"]]
    assert command(*words)[0] == 63
    status = json.loads(command("status", "small-study", "--json")[1])
    assert (status["state"], status["rounds_planned"], status["rounds_complete"]) == (
        "finished",
        2,
        2,
    )
    assert json.loads(command("models", "list", "--json")[1]) == []


def test_plan_check_says_what_a_selection_releases(command: Command, selecting_file: Path) -> None:
    code, out, _ = command("plan", "check", str(selecting_file))
    assert code == 0
    assert "21 candidates" in out
    assert "28 pairs" in out
    record = json.loads(command("plan", "check", str(selecting_file), "--json")[1])
    assert len(record["selection_noise_multipliers"]) == 2
