"""The real gate on real files, killed with SIGKILL at one step, then opened again and asked anew.

Runs in a process of its own (`forkserver`), since a process whose torch has threads cannot fork.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from common.privacy.ledger import Ledger
from common.protocol.messages import ReleasedTask
from site_client.open_site import open_records
from site_client.release import gate as gate_module
from site_client.release.release_log import ReleaseLog
from site_client.tasks import SiteTasks
from site_client.training.opacus_engine import OpacusEngine
from tests.lib.sites_in_process import InProcessSite, make_site

BEFORE, AFTER = "before", "after"
STEPS: dict[str, tuple[Any, str]] = {
    "the commitment": (Ledger, "commit"),
    "the reservation": (Ledger, "reserve"),
    "the computation": (OpacusEngine, "train"),
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
        engine=OpacusEngine(),
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
