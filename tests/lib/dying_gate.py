"""The real gate on real files, killed with SIGKILL at one step, then opened again and asked anew.

Runs in a process of its own (`forkserver`), since a process whose torch has threads cannot fork.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from common.clock import SystemClock
from common.privacy.ledger import Ledger
from common.privacy.ledger_entry import CommittedEntry, ReservedEntry
from common.protocol.messages import ReleasedTask
from site_client.open_site import open_records
from site_client.release import gate as gate_module
from site_client.release.release_log import ReleaseLog
from site_client.tasks import SiteTasks
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainedUpdate
from tests.lib.sites_in_process import InProcessSite, make_site

BEFORE, AFTER = "before", "after"
STEPS: dict[str, tuple[Any, str]] = {
    "the commitment": (Ledger, "commit"),
    "the reservation": (Ledger, "reserve"),
    "the computation": (DpSgdEngine, "train"),
    "the checks": (gate_module, "check_produced"),
    "the log": (ReleaseLog, "append_release"),
    "the ledger's note": (Ledger, "record_released"),
    "the seal": (gate_module, "seal_envelope"),
    "the kept reply": (ReleaseLog, "keep_reply"),
}


@dataclass(frozen=True)
class Aftermath:
    """What the site's files and replies say after the kill, after a retry and after another.

    Args:
        epsilon_committed: what counts against the limits, after the kill and after the retry.
    """

    killed: bool
    epsilon_committed: tuple[float, float]
    epsilon_after_kill: float
    epsilon_after_retry: float
    epsilon_after_second_retry: float
    payloads_after_kill: tuple[str, ...]
    payloads_after_retry: tuple[str, ...]
    released: bool
    second_reply_is_the_first: bool


def reopen(site: InProcessSite) -> InProcessSite:
    """Return the site as a restarted agent opens it: from its files alone."""
    records, _ = open_records(site.paths, clock=SystemClock(), key=site.keys.signing.verify_key)
    tasks = SiteTasks(
        site.config,
        folder=site.paths.home,
        keys=site.keys,
        records=records,
        clock=SystemClock(),
        engine=DpSgdEngine(),
    )
    return replace(site, tasks=tasks)


def _dying(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    def dies(*args: Any, **kwargs: Any) -> Any:
        if when == AFTER:
            function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return dies


def _run_and_die(site: InProcessSite, step: str, when: str, envelope: bytes) -> bool:
    child = os.fork()
    if child == 0:
        owner, name = STEPS[step]
        setattr(owner, name, _dying(getattr(owner, name), when))
        reopen(site).tasks.handle(envelope)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def release_killed_at(folder: Path, step: str, when: str) -> Aftermath:
    """Kill one release at one step, restart and retry twice; return what the files then say.

    Raises:
        CohortiumError: a chain does not verify.
    """
    made = make_site(folder)
    study, delta = made.plan.study.id, made.plan.privacy.delta
    envelope = made.envelope()
    killed = _run_and_die(made, step, when, envelope)
    site = reopen(made)
    records = site.tasks._records

    def epsilon() -> float:
        records.ledger.verify()
        return records.ledger.spent(study, delta).epsilon

    def payloads() -> tuple[str, ...]:
        return tuple(
            str(entry.payload_digest) for entry in records.log.verify() if entry.what == "release"
        )

    def committed() -> float:
        return records.ledger.committed(study, delta).epsilon

    after_kill = epsilon(), payloads()
    committed_after_kill = committed()
    reply = site.ask(envelope)
    after_retry = epsilon(), payloads()
    again = site.ask(site.envelope())
    return Aftermath(
        killed=killed,
        epsilon_committed=(committed_after_kill, committed()),
        epsilon_after_kill=after_kill[0],
        epsilon_after_retry=after_retry[0],
        epsilon_after_second_retry=epsilon(),
        payloads_after_kill=after_kill[1],
        payloads_after_retry=after_retry[1],
        released=isinstance(reply, ReleasedTask),
        second_reply_is_the_first=again == reply,
    )


TRACED = (
    "site_client/release/",
    "site_client/site_database.py",
    "common/privacy/ledger",
    "common/privacy/spending_limits.py",
)
"""The files of the release sequence: the process dies at any of their lines."""


class NoTraining:
    """An engine that adds nothing: where the process dies does not depend on what it trained."""

    def train(self, _patients: Any, base: Any, task: Any, _randomness: Any) -> TrainedUpdate:
        """Return an update of zeros with the task's mechanism."""
        return TrainedUpdate(
            {name: np.zeros_like(array) for name, array in base.items()}, task.mechanism
        )


class _LineCounter:
    """Counts the lines that run in the traced files and dies at one of them."""

    def __init__(self, last: int | None) -> None:
        self.lines = 0
        self._last = last

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> _LineCounter | None:
        if event == "call":
            name = frame.f_code.co_filename.replace(os.sep, "/")
            return self if any(part in name for part in TRACED) else None
        if event == "line":
            self.lines += 1
            if self.lines == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _answer(site: InProcessSite, envelope: bytes, last: int | None) -> int:
    counter = _LineCounter(last)
    sys.settrace(counter)
    try:
        site.tasks.handle(envelope)
    finally:
        sys.settrace(None)
    return counter.lines


def release_killed_at_lines(folder: Path, *, stride: int) -> tuple[int, int]:
    """Kill a release at every `stride`-th line of its sequence; each time restart and retry.

    Returns:
        how many lines the sequence has, and at how many of them it was killed.

    Raises:
        AssertionError: after some kill the ledger or the log says less than may have left, or the
            retry is charged again or sends other bytes.
    """
    made = make_site(folder / "site", engine=NoTraining())
    envelope = made.envelope()
    shutil.copytree(folder / "site", folder / "count")
    lines = _answer(_at(made, folder / "count"), envelope, None)
    places = range(1, lines + 1, stride)
    for line in places:
        place = folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "site", place)
        child = os.fork()
        if child == 0:
            _answer(_at(made, place), envelope, line)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), line
        _check_retried(_at(made, place), envelope, line)
    return lines, len(places)


def _at(site: InProcessSite, folder: Path) -> InProcessSite:
    moved = reopen(replace(site, paths=replace(site.paths, home=folder)))
    moved.tasks._engine = NoTraining()
    return moved


def _check_retried(site: InProcessSite, envelope: bytes, line: int) -> None:
    records = site.tasks._records
    before, logged = records.ledger.entries(), _payloads(records.log)
    # Whatever was logged may have left, so it is reserved, and its plan was committed before.
    kinds = [entry.kind for entry in before]
    assert kinds == ["committed", "reserved", "released"][: len(kinds)], line
    assert len(logged) <= 1, line
    assert not logged or len(before) >= 2, line
    reply = site.ask(envelope)
    assert isinstance(reply, ReleasedTask), line
    after = records.ledger.entries()
    assert after[: len(before)] == before, line
    assert [entry.kind for entry in after] == ["committed", "reserved", "released"], line
    committed, reserved = after[0], after[1]
    assert isinstance(committed, CommittedEntry)
    assert isinstance(reserved, ReservedEntry)
    assert reserved.plan_digest == committed.commitment.plan_digest, line
    assert reserved.mechanisms == reply.mechanisms, line
    assert _payloads(records.log)[: len(logged)] == logged, line
    assert len(_payloads(records.log)) == 1, line
    assert site.ask(site.envelope()) == reply, line
    assert records.ledger.entries() == after, line


def _payloads(log: ReleaseLog) -> list[str]:
    return [str(entry.payload_digest) for entry in log.verify() if entry.what == "release"]
