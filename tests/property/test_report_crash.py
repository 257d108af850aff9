"""kill -9 at lines of a report's sequence: never under-counted, one noise draw, one envelope."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.lib.dying_report import report_killed_at_lines


@pytest.mark.parametrize(
    "stride",
    [pytest.param(11, marks=pytest.mark.slow, id="many lines"), pytest.param(283, id="some")],
)
def test_a_report_killed_at_any_line_is_charged_once_noised_once_and_sealed_once(
    tmp_path: Path, stride: int
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.lib.dying_report"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        killing = pool.submit(report_killed_at_lines, tmp_path, stride=stride)
        lines, killed = killing.result(timeout=600)
    assert lines > 200
    assert killed >= lines // stride
