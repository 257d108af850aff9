"""What a person is told about a study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import StudyStateError
from common.ids import StudyId
from common.protocol.round_states import StudyState
from server.study_report import StudyReport, report_study
from tests.lib.memory_channel import (
    GARBAGE,
    Consortium,
    Lie,
    MemoryChannel,
    make_consortium,
    refusal_lie,
)
from tests.lib.plans import make_plan

ROUNDS = make_plan().training.rounds


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def _report(consortium: Consortium) -> StudyReport:
    return report_study(consortium.books, consortium.study_id)


def test_before_the_first_round_there_is_nothing_to_tell(consortium: Consortium) -> None:
    report = _report(consortium)
    assert (report.state, report.rounds_complete, report.rounds_planned) == ("running", 0, ROUNDS)
    assert (report.sites, report.pooled, report.events) == ((), None, ())


def test_a_finished_study_counts_its_training_rounds_only(consortium: Consortium) -> None:
    consortium.run()
    report = _report(consortium)
    assert (report.state, report.rounds_complete) == ("finished", ROUNDS)
    assert report.title == "A small study"
    assert len(report.events) == 4 * (ROUNDS + 1)
    assert report.events[0] == "round 1: east accepted"


def test_each_site_shows_band_epsilon_auroc_and_rounds(consortium: Consortium) -> None:
    consortium.run()
    by_id = {site.site_id: site for site in _report(consortium).sites}
    assert list(by_id) == ["east", "north", "south", "west"]
    north = by_id["north"]
    assert north.epsilon_spent == pytest.approx(0.1 * (ROUNDS + 1))
    assert north.epsilon_remaining == 2.0
    assert north.rounds == ROUNDS + 1
    assert north.auroc is not None
    assert 0.5 < north.auroc.value < 1.0
    assert "200" in north.patients
    assert north.patients != "200", "a band, not the number"


def test_the_pooled_interval_is_narrower_than_a_sites(consortium: Consortium) -> None:
    consortium.run()
    report = _report(consortium)
    [north] = [site for site in report.sites if site.site_id == "north"]
    assert report.pooled is not None
    assert north.auroc is not None
    assert report.pooled.high - report.pooled.low < north.auroc.high - north.auroc.low


def test_only_sites_that_scored_the_newest_model_are_pooled(consortium: Consortium) -> None:
    other_counts = ((1000,) * 10, (1000,) * 10)

    def other(reply: Any) -> Any:
        if reply.evaluation is None:
            return reply
        return replace(reply, evaluation=replace(reply.evaluation, counts=other_counts))

    for number in range(1, ROUNDS + 1):
        consortium.site("north").lies[number] = Lie(other)
    consortium.site("north").lies[ROUNDS + 1] = Lie(envelope=lambda _: None)
    consortium.run()
    report = _report(consortium)
    by_id = {site.site_id: site for site in report.sites}
    assert by_id["north"].auroc is not None
    assert by_id["north"].auroc.value == 0.5
    # Pooled with the counts of an older model it would be close to one half.
    assert report.pooled is not None
    assert by_id["east"].auroc is not None
    assert report.pooled.value == pytest.approx(by_id["east"].auroc.value, abs=1e-9)


def test_refusals_are_told_with_their_number(consortium: Consortium) -> None:
    consortium.site("north").lies[1] = Lie(refusal_lie("R6"))
    consortium.site("south").lies[1] = Lie(envelope=lambda _: GARBAGE)
    consortium.site("east").lies[1] = Lie(envelope=lambda _: None)
    consortium.run(
        MemoryChannel(consortium.sites), should_stop=_once(after=lambda: _answers(consortium) > 4)
    )
    events = _report(consortium).events
    assert "round 1: north refused-by-site (R6)" in events
    assert "round 1: south refused-by-coordinator (U1)" in events
    assert "round 1: east missing (no answer before the deadline)" in events


def _answers(consortium: Consortium) -> int:
    return len(consortium.books.rounds.answers(consortium.study_id))


def _once(*, after: Any) -> Any:
    return lambda: bool(after())


def test_a_site_that_never_answered_shows_no_number(consortium: Consortium) -> None:
    for number in range(1, ROUNDS + 2):
        consortium.site("north").lies[number] = Lie(refusal_lie("R6"))
    consortium.run()
    [north] = [site for site in _report(consortium).sites if site.site_id == "north"]
    assert (north.patients, north.auroc, north.epsilon_spent, north.rounds) == ("", None, None, 0)
    assert north.last_outcome == "refused-by-site R6"


def test_the_record_is_json_and_says_why_a_study_stopped(consortium: Consortium) -> None:
    consortium.run()
    record = json.loads(json.dumps(_report(consortium).as_record()))
    assert record["study_id"] == "small-study"
    assert record["sites"][0]["auroc_low"] < record["sites"][0]["auroc"]
    assert record["pooled_auroc_high"] > record["pooled_auroc"]


def test_a_stopped_study_says_by_whom(consortium: Consortium) -> None:
    consortium.books.register.change_state(
        consortium.study_id, StudyState.STOPPED, reason="stopped by a person"
    )
    assert (_report(consortium).state, _report(consortium).reason) == (
        "stopped",
        "stopped by a person",
    )


def test_an_unknown_study_is_refused(consortium: Consortium) -> None:
    with pytest.raises(StudyStateError):
        report_study(consortium.books, StudyId("unheard-of"))
