"""The board's commands: what they make, refuse and print."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.command_line import run_command
from common.crypto.keys import SigningKey
from common.ids import parse_study_id
from common.protocol.monitoring.notice_checks import verify_decision
from common.protocol.monitoring.notices import Action
from common.protocol.monitoring.roster_file import read_roster
from server.board_certificates import issue_board_certificate
from server.config import RelayConfig
from server.monitor_board.cli import app
from server.monitor_board.config import BoardPaths, read_config
from server.monitor_board.decision_book import read_decisions
from server.monitor_board.notices_out import unpublished
from server.monitor_board.storage.database import BoardDatabase
from tests.lib.enrolling import Enrolling
from tests.lib.plans import EXAMPLES

PLAN = EXAMPLES / "heart-disease.toml"


class Folder:
    """A board's folder and the files beside it."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.paths = BoardPaths(folder / "board")
        self.capture = capture

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command; return what it printed."""
        self.capture.readouterr()
        arguments = ["--home", str(self.paths.home), *words]
        found = run_command(app, name="cohortium-board", arguments=arguments)
        printed = self.capture.readouterr()
        assert found == code, printed
        return printed.out + printed.err

    def json(self, *words: str) -> Any:
        """Run a command with --json; return what it printed."""
        return json.loads(self.run(*words, "--json"))

    def at(self, name: str) -> str:
        """Return a file's path as a word."""
        return str(self.folder / name)

    def with_roster(self) -> None:
        """Make a roster of this board and two deciders, and take it."""
        self.run("init", "--consortium", "Heart network", "--id", "board-a")
        key = self.at("authority.key")
        fingerprint = self.json("authority", key)["fingerprint"]
        draft = self.at("draft")
        self.run("roster", "new", draft, "--consortium", "Heart network", "--authority", key)
        self.run("roster", "add-board", draft, str(self.paths.card))
        for name in ("ada", "ben"):
            self.run(
                "decide", "key", name, "--out", self.at(f"{name}.key"), "--card", self.at(name)
            )
            self.run("roster", "add-decider", draft, self.at(name))
        self.run("roster", "sign", draft, "--authority", key, "--out", self.at("roster"))
        self.run("trust", self.at("roster"), "--fingerprint", fingerprint)
        self.run("roster", "publish", self.at("roster"))


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


def test_init_makes_keys_that_nobody_else_reads_and_never_over_a_board(folder: Folder) -> None:
    folder.run("init", "--consortium", "Heart network", "--id", "board-a")
    secrets = [folder.paths.signing_key, *folder.paths.opening_keys.iterdir()]
    assert len(secrets) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets)
    assert read_config(folder.paths).board_id == "board-a"
    folder.run("init", "--consortium", "Heart network", "--id", "board-a", code=11)


def test_init_refuses_an_id_or_role_that_cannot_be(folder: Folder) -> None:
    folder.run("init", "--consortium", "Heart network", "--id", "Board A", code=23)
    folder.run("init", "--consortium", "H", "--id", "board-a", "--role", "king", code=11)
    assert not folder.paths.config.exists()


def test_a_command_without_a_board_says_how_to_make_one(folder: Folder) -> None:
    assert "cohortium-board init" in folder.run("status", code=11)


def test_a_certificate_is_taken_from_the_coordinator_on_the_telephone_and_from_no_other(
    folder: Folder,
) -> None:
    enrolling = Enrolling(folder.folder, relay=RelayConfig(port=18500))
    folder.run("init", "--consortium", "Heart network", "--id", "board-a")
    assert "certificate request" in folder.run("collect", code=11)
    asked = folder.json("certificate", "request", folder.at("board.csr"))
    for board_id in ("board-b", "board-a"):
        issue_board_certificate(
            folder.folder / "board.csr",
            board_id=board_id,
            fingerprint=asked["fingerprint"],
            answer=folder.folder / board_id,
            paths=enrolling.paths,
            config=enrolling.config,
            clock=SystemClock(),
        )
    take = ("certificate", "take")
    right = ("--fingerprint", enrolling.fingerprint)
    folder.run(*take, folder.at("board-b"), *right, code=23)
    folder.run(*take, folder.at("board-a"), "--fingerprint", "ab12", code=23)
    assert "127.0.0.1:18500" in folder.run(*take, folder.at("board-a"), *right)
    assert "trust" in folder.run("collect", code=11)


def test_plans_are_watched_with_their_digest_and_only_with_monitoring(folder: Folder) -> None:
    folder.run("init", "--consortium", "Heart network", "--id", "board-a")
    added = folder.json("plan", "add", str(PLAN), "--cohort", "north=400")
    assert [row["digest"] for row in folder.json("plan", "list")] == [added["digest"]]
    folder.run("plan", "add", str(PLAN), "--cohort", "north=many", code=11)
    without = folder.folder / "plan.toml"
    text = PLAN.read_text()
    without.write_text(text[: text.index("[monitoring]")].replace('id = "', 'id = "other-', 1))
    folder.run("plan", "add", str(without), code=52)


def test_a_decision_is_proposed_signed_shown_and_queued_for_the_relay(folder: Folder) -> None:
    folder.with_roster()
    study = folder.json("plan", "add", str(PLAN))["study_id"]
    words = ("--period", "2026-02", "--reason", "The slope left its bounds", "--key")
    out, file = ("--out", folder.at("decision")), folder.at("decision")
    folder.run("decide", "propose", study, "dance", *words, folder.at("ada.key"), *out, code=11)
    folder.run(
        "decide", "propose", study, "retrain", *words, folder.at("authority.key"), *out, code=21
    )
    folder.run("decide", "propose", study, "retrain", *words, folder.at("ada.key"), *out)
    folder.run("decide", "publish", file, code=30)
    folder.run(
        "decide", "sign", file, "--key", folder.at("ben.key"), "--roster", folder.at("roster")
    )
    (shown,) = folder.json("decide", "show", file)
    assert (shown["action"], shown["signed by"]) == ("retrain", "ada, ben")
    folder.run("decide", "publish", file)
    roster = read_roster((folder.folder / "roster").read_bytes())
    decision = verify_decision((folder.folder / "decision").read_bytes(), roster)
    assert (decision.study_id, decision.action) == (parse_study_id(study), Action.RETRAIN)
    database = BoardDatabase.of(folder.paths, read_config(folder.paths))
    with database.reading() as connection:
        assert [item.kind.value for item in unpublished(connection)] == ["roster", "decision"]
        # In no chain before the relay has it: nothing can build on what the relay refuses.
        assert read_decisions(connection, decision.study_id) == ()
    database.close()


def test_status_and_keys_say_what_there_is(folder: Folder) -> None:
    folder.with_roster()
    record = folder.json("status")
    assert record["roster"]["version"] == 1
    assert record["missing"] == record["refused"] == record["chains"] == []
    assert record["unpublished"] == 1
    assert "1 notice(s) wait for the relay" in folder.run("status")
    folder.run("keys", "rotate")
    states = sorted(row["in_roster"] for row in folder.json("keys", "show"))
    assert states == ["active", "not named"]


def test_a_roster_that_ended_is_said_and_not_used(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.with_roster()
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 500 * 86_400)
    study = folder.json("plan", "add", str(PLAN))["study_id"]
    answer = folder.run(
        *("decide", "propose", study, "watch", "--period", "2026-02", "--reason", "Because"),
        *("--key", folder.at("ada.key"), "--out", folder.at("decision")),
        code=30,
    )
    assert "O9" in answer


def test_the_authoritys_key_is_a_signing_key_of_its_own(folder: Folder) -> None:
    made = folder.json("authority", folder.at("authority.key"))
    assert SigningKey.read(folder.folder / "authority.key").fingerprint == made["fingerprint"]
    folder.run("authority", folder.at("authority.key"), code=20)


def test_a_consortium_may_ask_for_more_receipts_and_signatures(folder: Folder) -> None:
    folder.run("init", "--consortium", "Heart network", "--id", "board-a")
    key, draft = folder.at("authority.key"), folder.at("draft.json")
    folder.run("authority", key)
    more = ["--receipts", "2", "--decisions", "3"]
    folder.run("roster", "new", draft, "--consortium", "Heart", "--authority", key, *more)
    roster = read_roster(Path(draft).read_bytes())
    assert (roster.receipts_required, roster.decisions_required) == (2, 3)
