"""The states of rounds and studies change only as their tables say."""

from __future__ import annotations

import itertools

import pytest

from common.errors import StudyStateError
from common.protocol.round_states import (
    ROUND_CHANGES,
    STUDY_CHANGES,
    RoundState,
    StudyState,
    check_round_change,
    check_study_change,
)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(RoundState, RoundState)))
def test_a_round_changes_only_as_the_table_says(before: RoundState, after: RoundState) -> None:
    if after in ROUND_CHANGES[before]:
        check_round_change(before, after)
        return
    with pytest.raises(StudyStateError):
        check_round_change(before, after)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(StudyState, StudyState)))
def test_a_study_changes_only_as_the_table_says(before: StudyState, after: StudyState) -> None:
    if after in STUDY_CHANGES[before]:
        check_study_change(before, after)
        return
    with pytest.raises(StudyStateError):
        check_study_change(before, after)


def test_a_complete_round_and_a_finished_study_never_change() -> None:
    assert not ROUND_CHANGES[RoundState.COMPLETE]
    assert not STUDY_CHANGES[StudyState.FINISHED]


def test_every_state_is_reached_from_the_first_one() -> None:
    reached, frontier = {StudyState.REGISTERED}, [StudyState.REGISTERED]
    while frontier:
        for after in STUDY_CHANGES[frontier.pop()] - reached:
            reached.add(after)
            frontier.append(after)
    assert reached == set(StudyState)
