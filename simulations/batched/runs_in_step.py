"""Several runs in one process, in step, so that the sites of all of them train at one table.

Each run is the whole study in a thread of its own, up to where it asks its sites. When every run
has asked or has ended, all sites that were asked answer together. A site's update does not depend
on who trains beside it (`stacked_rounds`), so each run's model is that of the run alone, to the
last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from simulations.batched.baton import BatonThread
from simulations.batched.training_table import SiteTable, TrainingSeat, TrainingTable
from simulations.one_thread import one_thread

Key = TypeVar("Key", bound=Hashable)
Reply = TypeVar("Reply")
Result = TypeVar("Result")


def run_in_step(runs: Sequence[Callable[[SiteTable], Result]]) -> list[Result]:
    """Return the result of each run; they wait for each other wherever they ask their sites.

    Args:
        runs: each works its sites at the table that it is given, in its own thread.

    Raises:
        Exception: what the first of the runs that failed raised, when all have ended.
    """
    table = TrainingTable()
    going = all_runs = [_Run(run, table) for run in runs]
    try:
        with one_thread():  # no run may end it for the others
            while going:
                for run in going:
                    run.go_on()
                going = [run for run in going if not run.is_ended]
                _answer(table, going)
            return [run.reply() for run in all_runs]
    finally:
        for run in all_runs:
            run.abandon()


def _answer(table: TrainingTable, going: Sequence[_Run[Any]]) -> None:
    """Let all sites that the runs have asked answer, and give each run its replies."""
    asked = {
        (place, key): _kept(answer)
        for place, run in enumerate(going)
        for key, answer in run.asked.items()
    }
    for run in going:
        run.replies = {}
    for (place, key), reply in table.answer_together(asked):
        going[place].replies[key] = reply


@dataclass(frozen=True)
class _Raised:
    """What a site raised, for its own run alone."""

    error: Exception


def _kept(answer: Callable[[], object]) -> Callable[[], object]:
    def answer_or_error() -> object:
        try:
            return answer()
        except Exception as error:
            return _Raised(error)

    return answer_or_error


class _Run(BatonThread[Result]):
    """One run's thread, and the table as it sees it: it pauses there until all others have asked.

    Args:
        run: does it.
        table: of all runs.
    """

    def __init__(self, run: Callable[[SiteTable], Result], table: TrainingTable) -> None:
        self.asked: dict[Any, Callable[[], object]] = {}
        self.replies: dict[Any, object] = {}
        self._table = table
        super().__init__(lambda: run(self))

    def seat(self) -> TrainingSeat:
        """Return a new site's training engine, at the table of all runs."""
        return self._table.seat()

    def answer_together(
        self, asked: Mapping[Key, Callable[[], Reply]]
    ) -> Iterator[tuple[Key, Reply]]:
        """Yield each site's reply, in the order asked; raises what a site raised, at its turn."""
        self.asked = dict(asked)
        self.pause()
        for key in asked:
            reply: Any = self.replies.pop(key)
            if isinstance(reply, _Raised):
                raise reply.error
            yield key, reply
