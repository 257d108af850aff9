"""`cohortium-site monitor`: a site trusts, previews, reports, and shows where it stands."""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from common.clock import FixedClock, SystemClock
from common.command_line import run_command
from common.crypto.keys import SigningKey
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, report_tensors
from site_client.cli import app
from site_client.config import SitePaths, read_site_config
from site_client.open_monitoring import open_mailbox, open_monitor
from site_client.open_site import open_site
from tests.lib.enrolling import Enrolling
from tests.lib.monitored_site import (
    LIMITS,
    TABLE,
    Members,
    MonitoredSite,
    monitored_plan,
    some_model,
)
from tests.lib.plans import write_plan

PLAN = monitored_plan()
MONTH = datetime.datetime.now(tz=datetime.UTC).date().replace(day=1) - datetime.timedelta(days=1)
PERIOD = f"{MONTH:%Y-%m}"


@dataclass
class Site:
    """An enrolled site, and how to command it."""

    home: Path
    run: Callable[..., tuple[int, str, str]]
    members: Members

    def json(self, *words: str) -> Any:
        code, out, err = self.run(*words, "--json")
        assert code == 0, (out, err)
        return json.loads(out)

    def inside(self) -> MonitoredSite:
        """The same site as the agent opens it."""
        paths, clock = SitePaths(self.home), SystemClock()
        config, site = read_site_config(paths), open_site(paths, clock=clock)
        return MonitoredSite(
            paths,
            config,
            site,
            PLAN,
            self.members,
            FixedClock(clock.now_s()),
            open_monitor(config, site, paths, clock),
            open_mailbox(config, site, clock),
        )


def _visits(path: Path) -> None:
    lines = ["patient,seen,age,sbp,sex,stroke"]
    lines += [
        f"p{number},{PERIOD}-{number % 28 + 1:02d},{18 + number % 80},"
        f"{90 + number % 100},{'fm?'[number % 3]},{number % 2}"
        for number in range(700)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    enrolling = Enrolling(tmp_path)
    paths = enrolling.joined("northfield")
    paths.config.write_text(
        f'[site]\nid = "northfield"\ndeclared_cohort_size = 700\n{LIMITS}\n{TABLE}'
    )
    _visits(paths.home / "patients.csv")
    plan = tmp_path / "plan.toml"
    write_plan(plan, PLAN)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(
            app, name="cohortium-site", arguments=["--home", str(paths.home), *words]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    assert run("approve", str(plan), "--as", "A Steward", "--until", "2199-01-01")[0] == 0
    members = Members(coordinator=SigningKey.read(enrolling.paths.signing_key))
    return Site(paths.home, run, members)


def _content(site: Site) -> str:
    with contextlib.closing(sqlite3.connect(SitePaths(site.home).database)) as connection:
        return "\n".join(connection.iterdump())


def _trusted(site: Site, tmp_path: Path) -> None:
    inside = site.inside()
    (tmp_path / "roster.json").write_bytes(inside.signed(inside.roster()))
    words = ("--fingerprint", site.members.authority.fingerprint)
    assert site.json("monitor", "trust", str(tmp_path / "roster.json"), *words) == {
        "authority": site.members.authority.fingerprint,
        "roster": "taken",
    }


def _promoted(site: Site, *, plan: StudyPlan = PLAN) -> None:
    inside, model = site.inside(), some_model(plan)
    month_s = int(datetime.datetime(MONTH.year, MONTH.month, 20, tzinfo=datetime.UTC).timestamp())
    assert inside.mailbox.deliver(inside.promotion(model, at_s=month_s), model) == "taken"


def test_trust_asks_for_the_fingerprint_and_stays(site: Site, tmp_path: Path) -> None:
    key = tmp_path / "authority.txt"
    key.write_text(site.members.authority.verify_key.to_text() + "\n")
    code, _, err = site.run("monitor", "trust", str(key), "--fingerprint", "ab12")
    assert code == 23
    assert "telephone" not in err.split("to do:")[0]
    spaced = site.members.authority.fingerprint
    assert site.run("monitor", "trust", str(key), "--fingerprint", spaced)[0] == 0
    other = SigningKey.generate()
    key.write_text(other.verify_key.to_text())
    assert site.run("monitor", "trust", str(key), "--fingerprint", other.fingerprint)[0] == 23
    key.write_text("no key")
    assert site.run("monitor", "trust", str(key), "--fingerprint", other.fingerprint)[0] == 23


def test_a_preview_says_what_would_leave_and_what_it_costs_and_spends_nothing(
    site: Site, tmp_path: Path
) -> None:
    _trusted(site, tmp_path)
    _promoted(site)
    before = _content(site)
    words = ("monitor", "report", "small-study", "--period", PERIOD, "--kind", "case-mix", "--late")
    (record,) = site.json(*words, "--preview")["reports"]
    assert [item["name"] for item in record["tables"]] == [
        tensor.name for tensor in report_tensors(PLAN, ReportKind.CASE_MIX)
    ]
    assert record["patients"] == 700
    assert record["receivers"] == ["board-1"]
    assert 0 < record["epsilon_report"] < 1 < record["epsilon_account"] <= 8
    assert (record["is_charged"], record["is_made"]) == (False, False)
    _, said, _ = site.run(*words, "--preview")
    for phrase in (
        "700 patients (exact, for you alone)",
        "is charged with the first report",
        "sealed to board-1",
        "each patient is in one count of each table",
    ):
        assert phrase in " ".join(said.split())
    assert _content(site) == before


def test_a_report_is_made_shown_explained_and_left_to_the_courier(
    site: Site, tmp_path: Path
) -> None:
    assert site.run("monitor", "report", "small-study")[0] == 52  # no model yet
    _trusted(site, tmp_path)
    _promoted(site)
    words = ("monitor", "report", "small-study", "--period", PERIOD, "--kind", "case-mix", "--late")
    (made,) = site.json(*words)["reports"]
    assert (made["kind"], made["period"]) == ("case-mix", PERIOD)
    before = _content(site)
    site.json(*words)
    assert _content(site) == before  # made once
    (log,) = site.json("releases", "list")
    assert (log["what"], log["kind"], log["period"]) == ("report", "case-mix", PERIOD)
    assert f"report: case-mix of {PERIOD}" in " ".join(site.run("releases")[1].split())
    status = site.json("monitor", "status", "small-study")
    (line,) = [item for item in status["reports"] if item["kind"] == "case-mix"]
    assert line["state"] == "made, waits for its turn"
    assert status["blocked"] == []
    inside = site.inside()
    (envelope,) = inside.mailbox.outbox()
    assert inside.mailbox.deliver(inside.receipt(envelope)) == "taken"
    status = site.json("monitor", "status", "small-study")
    (line,) = [item for item in status["reports"] if item["kind"] == "case-mix"]
    assert (line["state"], line["number"]) == ("received by the board", 1)
    assert line["confirmed_by"] == ["board-1"]
    assert "board-1" in site.run("monitor", "status", "small-study")[1]
    studies = site.json("ledger", "show")["studies"]
    assert [item["study_id"] for item in studies] == ["small-study.monitoring"]
    words_ = " ".join(site.run("ledger", "explain", "small-study")[1].split())
    assert "Study small-study: monitoring of its model" in words_
    assert "counts the patients of a period in 3 tables, 6 times" in words_
    assert "counts held-out patients of training in" in words_
    assert "Your limit for one study's monitoring is ε 8" in words_
    assert site.run("ledger", "verify")[0] == 0
    export = str(tmp_path / "ledger.json")
    assert site.run("ledger", "export", "--out", export)[0] == 0
    assert site.run("ledger", "verify", export)[0] == 0


def test_run_once_makes_what_is_due_and_refuses_another_period_than_the_plans(
    site: Site, tmp_path: Path
) -> None:
    _trusted(site, tmp_path)
    _promoted(site)
    code, _, err = site.run("monitor", "run", "small-study", "--every", "week", "--once")
    assert code == 11
    assert "as the approved plan says" in err
    code, said, _ = site.run("monitor", "run", "small-study", "--every", "month", "--once")
    assert code == 0
    assert "reference of reference: " in said
    assert site.run("monitor", "run", "small-study", "--every", "month", "--once")[1] == ""


def test_status_shows_a_decision_that_stops_this_site_and_how_to_take_it_back(
    site: Site, tmp_path: Path
) -> None:
    from common.protocol.monitoring.notices import Action

    _trusted(site, tmp_path)
    _promoted(site)
    inside = site.inside()
    assert inside.mailbox.deliver(inside.decision(Action.STOP)) == "taken"
    status = site.json("monitor", "status", "small-study")
    assert status["is_paused"]
    assert status["decisions"][0]["is_about_this_site"]
    said = site.run("monitor", "status", "small-study")[1]
    assert "stop, to be followed here" in said
    assert "Creatinine drifted" in said
    assert "unpause" in said
    assert site.run("monitor", "report", "small-study")[0] == 52
    assert site.run("unpause", "small-study")[0] == 0
    assert site.run("monitor", "report", "small-study")[0] == 0


def test_a_roster_that_another_key_signed_is_not_trusted(site: Site, tmp_path: Path) -> None:
    inside = site.inside()
    roster = inside.signed(inside.roster())
    hostile = SigningKey.generate()
    theirs = replace(inside.roster(), authority=hostile.verify_key)
    site.members.authority, mine = hostile, site.members.authority
    forged = inside.signed(theirs)
    site.members.authority = mine
    path = tmp_path / "roster.json"
    path.write_bytes(forged)
    words = ("monitor", "trust", str(path), "--fingerprint")
    assert site.run(*words, mine.fingerprint)[0] == 23
    path.write_bytes(roster.replace(b'"grace_s":2592000', b'"grace_s":2592001'))
    assert site.run(*words, mine.fingerprint)[0] == 21
