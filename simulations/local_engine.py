"""The local engine: sites worked by processes of this machine, or by this one alone; no Ray.

Sites are dealt out to workers once, so that a worker finds its sites open in the next round. They
are asked in groups, a few ahead of what was taken, so that a thousand updates never lie in memory
together; replies are given in the order asked, because a sum of floats depends on its order.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from typing import Final, TypeAlias

from common.ids import SiteId
from common.study.plan import StudyPlan
from common.study.scaling import model_shapes
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.one_thread import one_thread
from simulations.site_turn import SitesInFolder
from simulations.site_worker import Group
from simulations.worker_process import WorkerProcess

Requests: TypeAlias = Mapping[SiteId, Callable[[], bytes]]

GROUP_MAX: Final = 32
"""Sites asked together: as many as may train as one program."""
AHEAD_BYTES_MAX: Final = 64 << 20
"""Of requests that were sent and replies that were not yet taken, each about a model's size."""
STEPS_THAT_PAY: Final = 400
"""Training steps of a whole run below which more processes cost more than they save."""


@contextlib.contextmanager
def local_channel(sites: SitesInFolder, *, workers: int | None = None) -> Iterator[SiteChannel]:
    """Give a channel to the sites; no process of it is left when the block ends.

    Args:
        sites: of the run.
        workers: processes; None: as many as cores where that pays.
    """
    wanted = workers_that_pay(sites.plan, len(sites.sites)) if workers is None else workers
    count = min(wanted, len(sites.sites))
    if count <= 1:
        with one_thread():
            yield ProcessChannel(sites)
        return
    channel = WorkersChannel(sites, workers=count)
    try:
        yield channel
    finally:
        channel.close()


def workers_that_pay(plan: StudyPlan, sites: int) -> int:
    """Return how many processes are worth starting for a run."""
    training = plan.training
    steps = sites * training.rounds * training.local_steps
    return _cores() if plan.selection is None and steps >= STEPS_THAT_PAY else 1


class ProcessChannel:
    """Carries envelopes to sites that are opened in this process, one group after another.

    Args:
        sites: of the run.
    """

    def __init__(self, sites: SitesInFolder) -> None:
        self._sites = sites
        shapes = model_shapes(sites.plan).values()
        self._model_bytes = 4 * sum(math.prod(shape) for shape in shapes)

    def ask(self, requests: Requests, *, deadline_s: float) -> Iterator[Arrived | Missing]:
        """Ask each site; every site answers, so the deadline is never met."""
        waiting = deque(requests.items())
        size = _group_max(self._model_bytes)
        while waiting:
            group = _take_group(waiting, size=size)
            for site_id, reply in self._sites.answer_together(dict(group)):
                yield Arrived(site_id, reply)
            size = _group_max(len(group[0][1]))


class WorkersChannel:
    """Carries envelopes to sites that are opened in worker processes.

    Args:
        sites: of the run.
        workers: processes, which start now.
    """

    def __init__(self, sites: SitesInFolder, *, workers: int) -> None:
        self._workers: list[WorkerProcess] = []
        try:
            for _ in range(workers):
                self._workers.append(WorkerProcess(sites, self._workers))
        except BaseException:
            self.close()
            raise
        self._worker_of = {
            site_id: self._workers[place % workers] for place, site_id in enumerate(sites.sites)
        }

    def ask(self, requests: Requests, *, deadline_s: float) -> Iterator[Arrived | Missing]:
        """Ask each site; every site answers, so the deadline is never met."""
        return _Round(self._workers, self._worker_of, requests).events()

    def close(self) -> None:
        """End every worker and wait until it is gone."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Round:
    """One round over workers: who is still to be asked, what has come and was not taken."""

    def __init__(
        self,
        workers: list[WorkerProcess],
        worker_of: Mapping[SiteId, WorkerProcess],
        requests: Requests,
    ) -> None:
        self._workers = {worker.connection: worker for worker in workers}
        self._worker_of = worker_of
        self._order = tuple(requests)
        self._waiting = {worker.connection: _Waiting() for worker in workers}
        for site_id, make_envelope in requests.items():
            self._waiting[worker_of[site_id].connection].append((site_id, make_envelope))
        self._share = max(1, -(-len(requests) // len(workers)))
        self._arrived: dict[SiteId, bytes] = {}
        self._ahead = 0
        self._envelope_bytes = 0

    def events(self) -> Iterator[Arrived]:
        """Yield the replies in the order asked."""
        for site_id in self._order:
            while site_id not in self._arrived:
                self._send(wanted=site_id)
                self._receive(timeout=None)
            # The workers go on while whoever asked looks at this one.
            self._receive(timeout=0)
            self._send(wanted=site_id)
            self._ahead -= 1
            yield Arrived(site_id, self._arrived.pop(site_id))

    def _send(self, *, wanted: SiteId) -> None:
        """Give each worker a second group while it works on one, within the bound on bytes."""
        for connection, worker in self._workers.items():
            waiting = self._waiting[connection]
            while waiting and len(worker.unanswered) < 2:
                is_needed = waiting[0][0] == wanted
                if not is_needed and self._ahead * self._envelope_bytes >= AHEAD_BYTES_MAX:
                    break
                size = min(self._share, _group_max(self._envelope_bytes))
                group = _take_group(waiting, size=size)
                self._envelope_bytes = max(self._envelope_bytes, len(group[0][1]))
                self._ahead += len(group)
                worker.send(group)

    def _receive(self, *, timeout: float | None) -> None:
        """Take what has come; wait for something without a timeout."""
        for ready in wait(list(self._workers), timeout=timeout):
            site_id, reply = self._workers[ready].receive()
            self._arrived[site_id] = reply


_Waiting: TypeAlias = deque[tuple[SiteId, Callable[[], bytes]]]


def _take_group(waiting: _Waiting, *, size: int) -> Group:
    return tuple(
        (site_id, make_envelope())
        for site_id, make_envelope in (waiting.popleft() for _ in range(min(size, len(waiting))))
    )


def _group_max(envelope_bytes: int) -> int:
    """Return how many sites are asked together, given the size of what one is sent."""
    return max(1, min(GROUP_MAX, AHEAD_BYTES_MAX // (8 * max(1, envelope_bytes))))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
