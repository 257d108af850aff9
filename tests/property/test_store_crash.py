"""kill -9 while the feature store is written: the old or the new entry, whole, and nothing else."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.lib.dying_store import killed_at_every_line


@pytest.mark.parametrize(
    "stride",
    [pytest.param(1, marks=pytest.mark.slow, id="every line"), pytest.param(7, id="some")],
)
@pytest.mark.parametrize("what", ["write", "write again", "drop"])
def test_a_store_killed_at_any_line_has_whole_entries_and_the_next_build_cleans_up(
    tmp_path: Path, what: str, stride: int
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.lib.dying_store"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        killing = pool.submit(killed_at_every_line, tmp_path, what, stride=stride)
        lines, killed = killing.result(timeout=600)
    assert lines > 30
    assert killed >= lines // stride
