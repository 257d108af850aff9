"""A worker process of the local engine, seen from the process that wants its answers."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from common.errors import ServiceError
from common.ids import SiteId
from simulations.site_turn import SitesInFolder
from simulations.site_worker import Group, error_of_record, work

_END_WAIT_S: Final = 5.0


class WorkerProcess:
    """A worker that runs until `end`.

    Args:
        sites: of the run.
        others: workers that were started before.

    Attributes:
        connection: this end of its pipe.
        unanswered: sites of each group that was sent and is not answered whole.
    """

    def __init__(self, sites: SitesInFolder, others: Sequence[WorkerProcess]) -> None:
        # Forking takes milliseconds; a new interpreter would import torch for seconds.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.connection, theirs = context.Pipe()
        self.unanswered: list[int] = []
        words = (sites, theirs, os.getpid())
        if sys.platform == "linux":
            # A forked child holds copies of what is open here: it must not keep pipes from ending.
            inherited = (self.connection, *(other.connection for other in others))
            self._process = context.Process(target=_forked, args=(inherited, *words), daemon=True)
        else:
            self._process = context.Process(target=work, args=words, daemon=True)
        with warnings.catch_warnings():
            # The child uses none of the threads that it does not get: torch has one there.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def send(self, group: Group) -> None:
        """Ask a group of sites; raises `ServiceError` when the worker has died."""
        self.unanswered.append(len(group))
        try:
            self.connection.send(group)
        except OSError:
            raise self._died() from None

    def receive(self) -> tuple[SiteId, bytes]:
        """Return the next reply; raises the worker's error, or `ServiceError` when it has died."""
        try:
            kind, *content = self.connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if kind == "error":
            raise error_of_record(content[0])
        self.unanswered[0] -= 1
        if self.unanswered[0] == 0:
            self.unanswered.pop(0)
        return content[0], content[1]

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self.connection.close()
        # An idle one ends by itself; what a busy one works on, nobody waits for any more.
        self._process.join(0 if self.unanswered else _END_WAIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _died(self) -> ServiceError:
        self._process.join(_END_WAIT_S)
        code = self._process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return ServiceError(
            "a worker process of the simulation has died",
            expected="that it answers until the run ends",
            arrived=how,
            todo="free memory or give fewer workers, then resume the run",
        )


def _forked(
    inherited: Sequence[Connection], sites: SitesInFolder, connection: Connection, parent: int
) -> None:
    for other in inherited:
        other.close()
    work(sites, connection, parent)
