"""Load many modules, and end, without the cyclic garbage collector looking at each of them.

Modules make hundreds of thousands of objects that stay: looking through them again and again took a
sixth of a simulation's start, and 0.2 to 0.4 s of its end.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_aside: Final[list[None]] = []
"""One for each block of `loaded_set_aside` that lasts: asking Python counts all objects."""


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Let the garbage collector rest for the block; it goes on after it if it was on before."""
    was_on, had_aside = gc.isenabled(), _is_some_aside()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if not had_aside:  # then they are only made old, and looked at when all are
            gc.unfreeze()
        if was_on:
            gc.enable()


def end_at_once() -> None:
    """Let this process end without looking for garbage: its memory goes back whole in any case.

    What ends files, folders and processes does so before, by `with` or `atexit`. Where DuckDB is
    loaded the end is Python's own: its bindings tell on stderr of everything that is not collected.
    """
    atexit.register(_leave_garbage)


@contextmanager
def loaded_set_aside() -> Iterator[None]:
    """Keep what is there now out of the collector's sight for the block, and of its forks.

    A fork that looks at an object copies its page. Garbage in circles from before stays until the
    block ends.
    """
    had_aside = _is_some_aside()
    _aside.append(None)
    gc.freeze()
    try:
        yield
    finally:
        _aside.pop()
        if not had_aside:
            gc.unfreeze()


def _leave_garbage() -> None:
    if "_duckdb" not in sys.modules:
        gc.freeze()


def _is_some_aside() -> bool:
    return bool(_aside) or gc.get_freeze_count() > 0
