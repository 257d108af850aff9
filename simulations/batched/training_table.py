"""A table at which sites wait for each other's rounds, and train them all at once.

Each site's real task runs in its own thread up to `train`; there it waits. When every site of the
group waits or has ended (refused, failed), one thread trains for all, and each site goes on in
turn: gate, ledger and seal are its own. Threads hand on one baton: no two of them ever run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Final, Protocol, TypeVar

from common.ids import Digest
from common.protocol.arrays import Parameters
from common.study.plan_bytes import plan_digest
from simulations.batched.baton import Abandoned, BatonThread
from simulations.batched.local_round import LocalResult, LocalRound, local_round, pays
from simulations.batched.stacked_rounds import train_rounds
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import STUDIES_KEPT_MAX, DpSgdEngine
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.randomness import Randomness
from site_client.training.round_start import OptimizerMemory

GROUP_MAX: Final = 32
"""Sites that wait for each other: each holds a thread and its round's patients."""
Key = TypeVar("Key", bound=Hashable)
Reply = TypeVar("Reply")


class SiteTable(Protocol):
    """What the sites of a run need of a table."""

    def seat(self) -> TrainingSeat:
        """Return a new site's training engine."""
        ...

    def answer_together(
        self, asked: Mapping[Key, Callable[[], Reply]]
    ) -> Iterator[tuple[Key, Reply]]:
        """Yield each site's reply, in the order asked; see `TrainingTable`."""
        ...


class TrainingTable:
    """Where the sites of one process train together."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._single = DpSgdEngine()
        self._single_lock = threading.Lock()

    def seat(self) -> TrainingSeat:
        """Return a new site's training engine."""
        return TrainingSeat(self)

    def answer_together(
        self, asked: Mapping[Key, Callable[[], Reply]], *, at_once: int = GROUP_MAX
    ) -> Iterator[tuple[Key, Reply]]:
        """Yield each site's reply, in the order asked; sites at this table train together.

        Args:
            asked: answers one request, by site; it may train at most once.
            at_once: sites of one group.

        Raises:
            Exception: what a site raised, at its turn.
        """
        waiting = list(asked.items())
        for start in range(0, len(waiting), at_once):
            yield from self._answer_group(waiting[start : start + at_once])

    def train(self, ready: LocalRound) -> LocalResult:
        """Return a round's result: with the group's others, or alone outside of a group."""
        guest: _Guest[object] | None = getattr(self._local, "guest", None)
        if guest is None:
            return train_rounds([ready])[0]
        return guest.wait(ready)

    def train_single(
        self,
        patients: FeatureMatrix,
        base: Parameters,
        task: TrainingTask,
        randomness: Randomness,
        memory: OptimizerMemory | None,
    ) -> LocalResult:
        """Return a round's result by `DpSgdEngine`, which all sites at this table take turns with.

        Args:
            patients, base, task, randomness: as in `TrainingEngine.train`.
            memory: of the site's earlier rounds of this study.
        """
        with self._single_lock:
            self._single.recall(task, memory)
            update = self._single.train(patients, base, task, randomness)
            return LocalResult(update, self._single.memory(task))

    def _answer_group(
        self, asked: list[tuple[Key, Callable[[], Reply]]]
    ) -> Iterator[tuple[Key, Reply]]:
        guests = [_Guest(answer, self._local) for _, answer in asked]
        try:
            for guest in guests:
                guest.go_on()
            arrived = [guest for guest in guests if guest.ready is not None]
            _train(arrived)
            for (key, _), guest in zip(asked, guests, strict=True):
                guest.go_on()
                yield key, guest.reply()
        finally:
            for guest in guests:
                guest.abandon()


class TrainingSeat:
    """One site's place: a `TrainingEngine` that keeps the site's optimiser state by study.

    What cannot be stacked, or would gain nothing by it, is trained by `DpSgdEngine` (`pays`).

    Args:
        table: where it stands.
    """

    def __init__(self, table: TrainingTable) -> None:
        self._table = table
        self._memories: OrderedDict[Digest, OptimizerMemory] = OrderedDict()

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return one round's update and its mechanism record; see `TrainingEngine`."""
        known = self._memories.get(plan_digest(task.plan))
        if pays(patients, task):
            done = self._table.train(local_round(patients, base, task, randomness, known))
        else:
            done = self._table.train_single(patients, base, task, randomness, known)
        self.recall(task, done.memory)
        return done.update

    def memory(self, task: TrainingTask) -> OptimizerMemory:
        """Return what the study's next round needs of the rounds before."""
        return self._memories.get(plan_digest(task.plan)) or OptimizerMemory(None, {}, {})

    def recall(self, task: TrainingTask, memory: OptimizerMemory | None) -> None:
        """Put the task's study where `memory` was taken; None begins it anew."""
        digest = plan_digest(task.plan)
        self._memories.pop(digest, None)
        if memory is not None:
            self._memories[digest] = memory
        while len(self._memories) > STUDIES_KEPT_MAX:
            self._memories.popitem(last=False)


def _train(guests: list[_Guest[Reply]]) -> None:
    """Train what the guests wait for; a failure is each one's own to report."""
    rounds = [guest.ready for guest in guests if guest.ready is not None]
    try:
        results: list[LocalResult | Exception] = list(train_rounds(rounds))
    except Exception as error:
        results = [error] * len(guests)
    for guest, result in zip(guests, results, strict=True):
        guest.result = result


class _Guest(BatonThread[Reply]):
    """One site's thread.

    Args:
        answer: the site's.
        local: through which the table finds the guest of a thread.
    """

    def __init__(self, answer: Callable[[], Reply], local: threading.local) -> None:
        self.ready: LocalRound | None = None
        self.result: LocalResult | Exception | None = None

        def answer_here() -> Reply:
            local.guest = self
            return answer()

        super().__init__(answer_here)

    def wait(self, ready: LocalRound) -> LocalResult:
        """Give the round to the table and return its result; runs in the site's thread."""
        self.ready = ready
        self.pause()
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is None:
            raise Abandoned
        return self.result
