"""The two counts of a selection: resumed, asked again, and without who lies or is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import RoundFailed
from common.ids import SiteId, parse_site_id
from common.protocol.codec import decode_request
from common.protocol.counts import decode_candidates, encode_counts
from common.protocol.envelope import open_envelope
from common.protocol.messages import Direction, TaskKind
from common.protocol.round_states import StudyState
from server.selection_rounds import read_counts
from server.site_channel import Arrived, Missing
from tests.lib.memory_channel import Consortium, Lie, MemoryChannel, make_consortium
from tests.lib.selecting import selecting_plan


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path, selecting_plan())


def state(consortium: Consortium) -> StudyState:
    return consortium.books.register.find(consortium.study_id).state


def test_two_counts_finish_the_study_and_make_no_model(consortium: Consortium) -> None:
    consortium.run()
    assert state(consortium) is StudyState.FINISHED
    assert consortium.outcomes("east") == [(1, "accepted", ""), (2, "accepted", "")]
    counts = read_counts(consortium.books, consortium.study)
    assert counts is not None
    assert (len(counts.singles), len(counts.joints)) == (21, 28)
    assert list(consortium.paths.models.glob("*")) == []


def test_nothing_is_read_before_both_counts_are_complete(consortium: Consortium) -> None:
    assert read_counts(consortium.books, consortium.study) is None


def test_a_stopped_selection_goes_on_with_the_pairs_that_the_first_count_gave(
    consortium: Consortium,
) -> None:
    def has_counted_once() -> bool:
        complete = [
            item.round_number
            for item in consortium.books.rounds.rounds(consortium.study_id)
            if item.state.value == "complete"
        ]
        return complete == [1]

    consortium.run(should_stop=has_counted_once)
    assert has_counted_once()
    channel = MemoryChannel(consortium.sites)
    consortium.run(channel)
    assert len(channel.asked) == 4  # the first count is not asked again
    other = make_consortium(consortium.paths.home.parent / "other", selecting_plan())
    other.run()
    resumed = read_counts(consortium.books, consortium.study)
    at_once = read_counts(other.books, other.study)
    assert resumed is not None
    assert at_once is not None
    assert list(resumed.joints) == list(at_once.joints)


def test_a_round_without_quorum_asks_for_the_same_pairs_again(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, selecting_plan(training__quorum=3))
    asked: list[str] = []

    def silent_once(envelope: bytes) -> bytes | None:
        asked.append("silent")
        return None if len(asked) <= 2 else envelope

    for name in ("east", "north"):
        consortium.site(name).lies[2] = Lie(envelope=silent_once)
    consortium.run()
    assert state(consortium) is StudyState.FINISHED
    counts = read_counts(consortium.books, consortium.study)
    assert counts is not None
    # South answered twice, with the same counts, and is summed once.
    assert len(counts.sites) == 4
    accepted = [item for item in consortium.outcomes("south") if item[1] == "accepted"]
    assert [number for number, _, _ in accepted] == [1, 2, 2]
    versions = {
        item.base_version
        for item in consortium.books.rounds.rounds(consortium.study_id)
        if item.round_number == 2
    }
    assert len(versions) == 1


def test_a_selection_whose_sites_stay_silent_fails_and_can_go_on(consortium: Consortium) -> None:
    for name in ("east", "north", "south"):
        consortium.site(name).lies[1] = Lie(envelope=lambda _: None)
    with pytest.raises(RoundFailed):
        consortium.run()
    assert state(consortium) is StudyState.FAILED
    for name in ("east", "north", "south"):
        consortium.site(name).lies.clear()
    consortium.run()
    assert state(consortium) is StudyState.FINISHED


def test_the_counts_of_a_site_that_lies_are_left_out(consortium: Consortium) -> None:
    cells = 20 * 4 + 6
    consortium.site("north").lies[1] = Lie(
        reply=lambda reply: replace(reply, update=encode_counts([2**31 - 1] * cells))
    )
    consortium.run()
    assert consortium.outcomes("north")[0] == (1, "refused-by-coordinator", "U16")
    assert state(consortium) is StudyState.FINISHED
    counts = read_counts(consortium.books, consortium.study)
    assert counts is not None
    assert counts.singles[0].noise < next(iter(counts.joints.values())).noise


def test_the_pairs_that_are_asked_for_rise_and_are_of_the_planned_number(
    consortium: Consortium,
) -> None:
    questions = []
    east = consortium.sites[parse_site_id("east")]

    class Watching(MemoryChannel):
        def ask(
            self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
        ) -> Iterator[Arrived | Missing]:
            _, plaintext = open_envelope(
                requests[east.site_id](),
                verify_key=east.coordinator.signing.verify_key,
                opening_key=east.party.opening,
                direction=Direction.REQUEST,
            )
            questions.append(decode_request(plaintext))
            yield from super().ask(requests, deadline_s=deadline_s)

    consortium.run(Watching(consortium.sites))
    assert [item.kind for item in questions] == [TaskKind.COUNT] * 2
    assert not any(item.evaluate for item in questions)
    single, joint = (decode_candidates(item.parameters) for item in questions)
    assert single == ()
    assert len(joint) == 8
    assert list(joint) == sorted(set(joint))
