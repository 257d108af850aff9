"""Load many modules at once without the cyclic garbage collector looking at each of them.

Modules make hundreds of thousands of objects that stay: looking through them again and again while
they are made took a sixth of a simulation's start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Let the garbage collector rest for the block; it goes on after it if it was on before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
