"""The two rounds of a plan that selects, and the counts that its sites have answered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.ids import SiteId
from common.privacy.calibration import plan_mechanisms
from common.protocol.counts import decode_candidates, encode_candidates
from common.protocol.round_states import RoundState, StudyState
from common.study.contingency import JOINT_ROUND, SINGLE_ROUND, cell_count, count_tables
from common.study.plan import StudyPlan
from server.books import Books
from server.noisy_tables import NoisyTable, split_tables
from server.relevance import joint_candidates
from server.round_book import Answer, Outcome
from server.study_register import Study


@dataclass(frozen=True)
class SelectionCounts:
    """What a finished selection has learnt: one site's release in each round, summed over sites.

    Args:
        singles: of every candidate, in the plan's order.
        joints: of the pairs among the best, by their two places.
        sites: whose counts are in either.
        epsilon_spent: the greatest that a site stated for this study.
    """

    singles: tuple[NoisyTable, ...]
    joints: dict[tuple[int, int], NoisyTable]
    sites: tuple[SiteId, ...]
    epsilon_spent: float


class SelectionRounds:
    """Count single candidates, choose the best, count their pairs.

    Args:
        study: whose plan selects.
        books: where its rounds and answers are.
        ask: asks all sites in a round and says whether the quorum answered; false when the study
            stops.
        should_stop: asked before each round.
    """

    def __init__(
        self,
        study: Study,
        books: Books,
        *,
        ask: Callable[[int, bytes], bool],
        should_stop: Callable[[], bool],
    ) -> None:
        self._study = study
        self._books = books
        self._ask = ask
        self._should_stop = should_stop

    def run(self) -> None:
        """Run the rounds that are left; what was chosen is a function of round 1's answers."""
        study_id = self._study.study_id
        for number in (SINGLE_ROUND, JOINT_ROUND):
            if number in _complete(self._books, self._study):
                continue
            if self._should_stop() or not self._ask(number, self._question(number)):
                return
            self._books.rounds.complete_count(study_id, number)
        self._books.register.change_state(study_id, StudyState.FINISHED)

    def _question(self, number: int) -> bytes:
        if number == SINGLE_ROUND:
            return encode_candidates(())
        singles = _tables(self._books, self._study, SINGLE_ROUND)
        return encode_candidates(joint_candidates(self._study.plan, singles))


def read_counts(books: Books, study: Study) -> SelectionCounts | None:
    """Return what a study that selects has learnt, or None before both are complete."""
    if study.plan.selection is None or JOINT_ROUND not in _complete(books, study):
        return None
    singles = _tables(books, study, SINGLE_ROUND)
    joints = _tables(books, study, JOINT_ROUND, joint_candidates(study.plan, singles))
    answers = [item for item in books.rounds.answers(study.study_id) if _is_accepted(item)]
    return SelectionCounts(
        singles=singles,
        joints={_pair(table.candidates): table for table in joints},
        sites=tuple(sorted({item.site_id for item in answers})),
        epsilon_spent=max(float(item.detail["statement"]["epsilon_spent"]) for item in answers),
    )


def cells_asked(plan: StudyPlan, question: bytes) -> int:
    """Return the number of cells that a question's answer has."""
    return cell_count(count_tables(plan, decode_candidates(question)))


def _tables(
    books: Books, study: Study, number: int, candidates: tuple[int, ...] = ()
) -> tuple[NoisyTable, ...]:
    selection = plan_mechanisms(study.plan).selection
    # A site that answered twice, because the round was asked again, answered the same.
    found = {
        item.site_id: item.detail["counts"]
        for item in books.rounds.answers(study.study_id)
        if item.round_number == number and _is_accepted(item)
    }
    tables = count_tables(study.plan, candidates)
    noise = 0.0 if selection is None else selection.of_round(number).noise_multiplier
    summed = np.sum([np.asarray(counts, dtype=np.int64) for counts in found.values()], axis=0)
    return split_tables(summed, tables, noise=noise * math.sqrt(len(found)))


def _complete(books: Books, study: Study) -> set[int]:
    return {
        item.round_number
        for item in books.rounds.rounds(study.study_id)
        if item.state is RoundState.COMPLETE
    }


def _is_accepted(answer: Answer) -> bool:
    return answer.outcome is Outcome.ACCEPTED


def _pair(candidates: tuple[int, ...]) -> tuple[int, int]:
    first, second = candidates
    return first, second
