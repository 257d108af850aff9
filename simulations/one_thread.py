"""Torch on one thread while a simulation works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread while the block lasts.

    A hospital's batch is too small to be worth waking another: threads that wait for each other
    cost small steps far more than they save, ten times on a machine that does other work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
