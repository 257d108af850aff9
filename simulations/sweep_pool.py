"""The processes of a sweep: each does one job at a time, and none outlives whoever started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Final, Self, TypeAlias

from common import errors
from common.errors import CohortiumError, InternalError, ServiceError, StoreError
from simulations.seeds_in_step import SeedsInStep
from simulations.sweep_baselines import BaselineJob
from simulations.sweep_run import RunRecord

_STOP_WAIT_S: Final = 5.0
_DELETIONS_MAX: Final = 20

Job: TypeAlias = SeedsInStep | BaselineJob
"""What a process does at a time: it makes runs or a baseline."""


@dataclass(frozen=True)
class _Failure:
    """Why a run failed, as plain values: an exception does not cross a pipe whole."""

    record: dict[str, str | int]


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


class SweepProcesses:
    """Processes that make runs and baselines.

    Leaving the context ends them all, and deletes what they wrote.

    A process that is killed in a run cannot delete its temporary folders, where patients' features
    are; so they lie in one folder, which whoever started the processes deletes.

    Args:
        workers: how many; with 1 everything is made in this one.
    """

    def __init__(self, workers: int) -> None:
        self._limit = workers
        self._workers: list[_Worker] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        if self._limit > 1:
            self._scratch = tempfile.TemporaryDirectory(
                prefix="cohortium-sweep-", ignore_cleanup_errors=True
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            _stop(self._workers)
        finally:
            if self._scratch is not None:
                self._scratch.cleanup()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[RunRecord]]]:
        """Do jobs and yield each with its records, in the order in which they end.

        Args:
            jobs: taken one by one as a process becomes free: not all need be in memory together.

        Raises:
            CohortiumError: of the first job that fails.
            ServiceError: when a process ends by itself.
        """
        if self._scratch is None:
            for job in jobs:
                yield job, job.make()
            return
        for job in jobs:
            idle = next((item for item in self._workers if item.job is None), None)
            if idle is None and len(self._workers) < self._limit:
                idle = _start(self._scratch.name)
                self._workers.append(idle)
            if idle is None:
                idle, done, record = _next_done(self._workers)
                yield done, record
            _give(idle, job)
        while any(worker.job for worker in self._workers):
            _, done, record = _next_done(self._workers)
            yield done, record


def _start(scratch: str) -> _Worker:
    # "spawn": a fork would copy the locks of torch's threads as they happen to be.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, scratch), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, job: Job) -> None:
    worker.job = job
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send(job)  # a process that has gone is told when its answer is read


def _next_done(busy: list[_Worker]) -> tuple[_Worker, Job, list[RunRecord]]:
    ready = wait([worker.pipe for worker in busy if worker.job])
    worker = next(item for item in busy if item.pipe is ready[0])
    job, worker.job = worker.job, None
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        answer = None
    if job is None or answer is None:
        worker.process.join(_STOP_WAIT_S)
        raise ServiceError(
            "a process of the sweep ended by itself",
            expected="processes that end when they are told to",
            arrived=f"exit code {worker.process.exitcode}, the system's when it is negative",
            todo="run the sweep again, where it goes on; with less memory than it needs, use fewer "
            "--workers",
        )
    if isinstance(answer, _Failure):
        raise _as_error(answer.record)
    return worker, job, answer


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_STOP_WAIT_S)
        worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection, scratch: str) -> None:
    """Do jobs until the pipe closes: the body of a process."""
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep hears Ctrl-C and stops us
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        answer: list[RunRecord] | _Failure
        try:
            answer = job.make()
        except CohortiumError as error:
            answer = _Failure(error.as_record())
        except OSError as error:
            answer = _Failure(_no_room(error).as_record())
        # A traceback could quote data: only what kind of error it was crosses the pipe.
        except Exception as error:
            answer = _Failure(_internal(error).as_record())
        pipe.send(answer)


def _end_with_parent(scratch: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # A parent that was killed deletes nothing. Our own run may still write while we delete.
        for _ in range(_DELETIONS_MAX):
            shutil.rmtree(scratch, ignore_errors=True)
            if not os.path.exists(scratch):
                break
        os._exit(1)


def _no_room(error: OSError) -> StoreError:
    return StoreError(
        "a run of the sweep could not use its temporary folder",
        expected="free space where temporary files lie (TMPDIR)",
        arrived=error.strerror or type(error).__name__,
        todo="free disk space or set TMPDIR, and run the sweep again, where it goes on",
    )


def _internal(error: Exception) -> InternalError:
    return InternalError(
        "a run of the sweep failed by a fault of ours",
        expected="no exception of this kind",
        arrived=type(error).__name__,
        todo="run the same cell alone with `cohortium-sim run` and report this as a fault",
    )


def _as_error(record: dict[str, str | int]) -> CohortiumError:
    kind = getattr(errors, str(record["error"]), InternalError)
    made: type[CohortiumError] = kind if issubclass(kind, CohortiumError) else InternalError
    return made(
        str(record["refused"]),
        expected=str(record["expected"]),
        arrived=str(record["arrived"]),
        todo=str(record["to_do"]),
        number=str(record["number"]),
    )
