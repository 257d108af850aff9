"""The states of a round and of a study, and the changes allowed between them, as two tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from common.errors import StudyStateError


class RoundState(StrEnum):
    """Where one round is."""

    OPEN = "open"  # requests are out
    COMPLETE = "complete"  # aggregated, checkpointed
    FAILED = "failed"  # ended without its quorum


class StudyState(StrEnum):
    """Where one study is."""

    REGISTERED = "registered"  # signed plan stored, no round yet
    RUNNING = "running"
    STOPPED = "stopped"  # by a person; may be resumed
    FAILED = "failed"  # rounds kept failing, or the run died too often; may be resumed
    FINISHED = "finished"  # all rounds complete, final model registered


ROUND_CHANGES: Final[dict[RoundState, frozenset[RoundState]]] = {
    RoundState.OPEN: frozenset({RoundState.OPEN, RoundState.COMPLETE, RoundState.FAILED}),
    RoundState.FAILED: frozenset({RoundState.OPEN}),
    RoundState.COMPLETE: frozenset(),
}

STUDY_CHANGES: Final[dict[StudyState, frozenset[StudyState]]] = {
    StudyState.REGISTERED: frozenset({StudyState.RUNNING, StudyState.STOPPED}),
    StudyState.RUNNING: frozenset(
        {StudyState.RUNNING, StudyState.STOPPED, StudyState.FAILED, StudyState.FINISHED}
    ),
    StudyState.STOPPED: frozenset({StudyState.RUNNING, StudyState.STOPPED}),
    StudyState.FAILED: frozenset({StudyState.RUNNING, StudyState.STOPPED}),
    StudyState.FINISHED: frozenset(),
}


def check_round_change(before: RoundState, after: RoundState) -> None:
    """Refuse a change of a round's state that the table does not allow."""
    if after not in ROUND_CHANGES[before]:
        raise _refuse("round", before, after, ROUND_CHANGES[before])


def check_study_change(before: StudyState, after: StudyState) -> None:
    """Refuse a change of a study's state that the table does not allow."""
    if after not in STUDY_CHANGES[before]:
        raise _refuse("study", before, after, STUDY_CHANGES[before])


def _refuse(
    what: str,
    before: StrEnum,
    after: StrEnum,
    allowed: frozenset[RoundState] | frozenset[StudyState],
) -> StudyStateError:
    names = ", ".join(sorted(allowed)) or "nothing: it has ended"
    return StudyStateError(
        f"a {what} cannot go from {before} to {after}",
        expected=f"from {before} to {names}",
        arrived=f"to {after}",
        todo="look at `cohortium-coordinator status`",
    )
