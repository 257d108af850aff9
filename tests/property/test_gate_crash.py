"""kill -9 at every step of a release: never under-counted, charged once, one payload ever."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.lib.dying_gate import (
    AFTER,
    BEFORE,
    STEPS,
    release_killed_at,
    release_killed_at_lines,
)


@pytest.fixture(scope="module")
def fresh_processes() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.lib.dying_gate"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("step", STEPS)
def test_a_release_killed_at_any_step_is_charged_once_and_has_one_payload(
    fresh_processes: ProcessPoolExecutor, tmp_path: Path, step: str, when: str
) -> None:
    seen = fresh_processes.submit(release_killed_at, tmp_path, step, when).result(timeout=120)
    assert seen.killed
    assert seen.released
    nothing_committed = step == "the commitment" and when == BEFORE
    nothing_reserved = step == "the commitment" or (step == "the reservation" and when == BEFORE)
    committed_after_kill, committed = seen.epsilon_committed
    assert committed_after_kill == (0 if nothing_committed else committed)
    assert seen.epsilon_after_retry < committed  # one round of a plan that promised them all
    assert (seen.epsilon_after_kill == 0) == nothing_reserved
    if not nothing_reserved:  # the retry completes the release that was reserved
        assert seen.epsilon_after_retry == seen.epsilon_after_kill
    assert seen.epsilon_after_retry > 0
    assert seen.epsilon_after_second_retry == seen.epsilon_after_retry
    assert len(seen.payloads_after_retry) == 1
    # A payload that was logged before the kill is the one that is sent, byte for byte.
    assert set(seen.payloads_after_kill) <= set(seen.payloads_after_retry)
    assert seen.second_reply_is_the_first


@pytest.mark.parametrize(
    "stride",
    [pytest.param(1, marks=pytest.mark.slow, id="every line"), pytest.param(83, id="some")],
)
def test_a_release_killed_at_any_line_of_its_sequence_is_never_under_counted(
    fresh_processes: ProcessPoolExecutor, tmp_path: Path, stride: int
) -> None:
    killing = fresh_processes.submit(release_killed_at_lines, tmp_path, stride=stride)
    lines, killed = killing.result(timeout=600)
    assert lines > 200
    assert killed >= lines // stride
