"""One ServerApp a study: a lock that the operating system frees when its holder dies.

It keeps two runs of a study from writing the same rounds, and tells `up` at once that a ServerApp
was killed, where Flower needs up to a minute.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from common.errors import StudyStateError
from common.ids import StudyId
from server.config import CoordinatorPaths

_WAIT_S: Final = 30.0


@contextmanager
def hold_run_lock(paths: CoordinatorPaths, study_id: StudyId) -> Iterator[None]:
    """Hold the study's lock; raises `StudyStateError` when another run keeps it."""
    path = paths.home / f"{study_id}.lock"
    deadline = time.monotonic() + _WAIT_S
    with path.open("a") as stream:
        while not _try_lock(stream.fileno()):
            if time.monotonic() > deadline:
                raise StudyStateError(
                    f"another run of {study_id} is at work",
                    expected="one run of a study at a time",
                    arrived="a second one",
                    todo="stop the other run first",
                )
            time.sleep(0.2)
        yield


def is_run_alive(paths: CoordinatorPaths, study_id: StudyId) -> bool:
    """Return whether some process holds the study's lock."""
    with (paths.home / f"{study_id}.lock").open("a") as stream:
        return not _try_lock(stream.fileno())


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
