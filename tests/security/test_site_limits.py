"""The site is sovereign: its limits win, its ledger stops training, and no text of data leaves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from common.errors import LedgerError
from common.ids import ReleaseId
from common.protocol.messages import RefusedTask, ReleasedTask
from site_client.release.gate import Released
from site_client.site_database import SiteDatabase
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.randomness import Randomness
from tests.lib.sites_in_process import make_site

MARK = "MARKED-PATIENT-VALUE"
LOW_LIMIT = (
    "[limits]\nepsilon_per_study = 1.0\nepsilon_total = 8.0\n"
    "delta_total = 1e-3\ncohort_size_min = 50\n"
)
LOW_TOTAL = (
    "[limits]\nepsilon_per_study = 4.0\nepsilon_total = 0.5\n"
    "delta_total = 1e-3\ncohort_size_min = 50\n"
)
HIGH_MINIMUM = (
    "[limits]\nepsilon_per_study = 4.0\nepsilon_total = 8.0\n"
    "delta_total = 1e-3\ncohort_size_min = 5000\n"
)


class CountingEngine(DpSgdEngine):
    """Stock training that counts its calls, and may fail with a text that quotes a row."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.calls = 0
        self.fails = fails

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.fails:
            raise ValueError(f"could not convert string to float: {MARK}")
        return super().train(*args, **kwargs)


def _refused(reply: Any) -> str:
    assert isinstance(reply, RefusedTask), reply
    return reply.number


def test_r11_a_site_whose_limit_is_below_the_plans_epsilon_refuses_before_reading_data(
    tmp_path: Path,
) -> None:
    engine = CountingEngine()
    site = make_site(tmp_path, limits=LOW_LIMIT, engine=engine)
    for path in (tmp_path / "data").iterdir():
        path.unlink()  # reading would be R14
    assert _refused(site.ask(site.envelope())) == "R11"
    assert engine.calls == 0


def test_r12_a_study_whose_whole_plan_would_pass_the_total_limit_never_begins(
    tmp_path: Path,
) -> None:
    engine = CountingEngine()
    site = make_site(tmp_path, limits=LOW_TOTAL, engine=engine)
    numbers = []
    for number in range(1, 6):
        reply = site.ask(site.envelope(number))
        numbers.append(reply.number if isinstance(reply, RefusedTask) else "released")
    assert set(numbers) == {"R12"}
    assert engine.calls == 0
    assert site.tasks._records.ledger.entries() == ()


def test_r12_an_adaptive_site_refuses_what_its_filter_cannot_pay_for(tmp_path: Path) -> None:
    """Planned composition lets this plan begin at the same limit: it promises 2.47."""
    limits = LOW_TOTAL.replace("epsilon_total = 0.5", "epsilon_total = 2.5")
    planned, adaptive = tmp_path / "planned", tmp_path / "adaptive"
    for folder in (planned, adaptive):
        folder.mkdir()
    site = make_site(planned, limits=limits)
    assert isinstance(site.ask(site.envelope()), ReleasedTask)
    site = make_site(adaptive, limits=limits + '\ncomposition = "adaptive"\n')
    assert _refused(site.ask(site.envelope())) == "R12"
    assert site.tasks._records.ledger.entries() == ()


def test_a_study_that_stops_early_is_charged_what_it_promised(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    reply = site.ask(site.envelope())
    assert isinstance(reply, ReleasedTask)
    ledger, privacy = site.tasks._records.ledger, site.plan.privacy
    promised = ledger.committed(site.plan.study.id, privacy.delta).epsilon
    assert 0.98 * privacy.epsilon < promised <= privacy.epsilon
    assert reply.statement.epsilon_spent < 0.5 * promised


def test_r13_a_cohort_below_the_sites_minimum_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path, limits=HIGH_MINIMUM)
    assert _refused(site.ask(site.envelope())) == "R13"


def test_r15_a_ledger_that_cannot_be_written_stops_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CountingEngine()
    site = make_site(tmp_path, engine=engine)
    site.tasks._records.ledger._store._database.rows("PRAGMA query_only = ON")  # type: ignore[attr-defined]
    assert _refused(site.ask(site.envelope())) == "R15"
    assert engine.calls == 0


def test_r14_r18_no_text_of_an_exception_reaches_a_reply_or_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(tmp_path, engine=CountingEngine(fails=True))
    with caplog.at_level(logging.DEBUG):
        reply = site.tasks.handle(site.envelope()).envelope
    assert MARK.encode() not in reply
    assert MARK not in caplog.text
    assert MARK.encode() not in (tmp_path / "state" / "site.db").read_bytes()


def test_a_crash_after_the_reservation_is_charged_once_and_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CountingEngine()
    site = make_site(tmp_path, engine=engine)
    ledger = site.tasks._records.ledger
    with monkeypatch.context() as dying:
        dying.setattr(engine, "train", _die)
        with pytest.raises(SystemExit):
            site.tasks.handle(site.envelope())
    reserved = ledger.spent(site.plan.study.id, site.plan.privacy.delta).epsilon
    assert reserved > 0  # what was reserved stays charged
    assert isinstance(site.ask(site.envelope()), ReleasedTask)
    assert ledger.spent(site.plan.study.id, site.plan.privacy.delta).epsilon == reserved
    assert isinstance(site.ask(site.envelope()), ReleasedTask)  # asked anew: the same release
    assert ledger.spent(site.plan.study.id, site.plan.privacy.delta).epsilon == reserved
    assert engine.calls == 1


def _die(*_: object) -> None:
    raise SystemExit


def test_g1_reproducible_randomness_is_refused_with_a_real_ledger(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.tasks._randomness = lambda: Randomness.reproducible(1)
    assert _refused(site.ask(site.envelope())) == "R18"
    entries = site.tasks._records.log.entries()
    assert [entry.what for entry in entries] == ["refusal"]


def test_a_whole_study_spends_no_more_than_the_plan_promises(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    for number in range(1, site.plan.training.rounds + 2):
        reply = site.ask(site.envelope(number))
        assert isinstance(reply, ReleasedTask), reply
    assert 0.98 * site.plan.privacy.epsilon < reply.statement.epsilon_spent
    assert reply.statement.epsilon_spent <= site.plan.privacy.epsilon
    site.tasks._records.ledger.verify()
    assert len(site.tasks._records.log.verify()) == site.plan.training.rounds + 1


def test_a_changed_release_log_does_not_verify(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.ask(site.envelope())
    database = SiteDatabase(site.paths.database)
    with database.transaction() as connection:
        connection.execute(
            "UPDATE release_log SET entry = replace(entry, 'release', 'refusal') WHERE sequence=1"
        )
    with pytest.raises(LedgerError):
        site.tasks._records.log.verify()


def test_only_the_gate_can_make_bytes_that_may_leave() -> None:
    with pytest.raises(TypeError, match="gate"):
        Released(b"anything", maker=object())
    assert ReleaseId  # the type that names what left
