"""A real federation for end-to-end tests: processes, TLS, node authentication, ledgers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulations.demo import start
from simulations.deployment import Deployment
from simulations.heart_sites import heart_sites

PLAN = Path(__file__).parents[2] / "docs" / "examples" / "heart-disease.toml"


def short_plan(
    folder: Path, *, rounds: int = 4, quorum: int = 3, deadline_s: int = 120, study: str = "heart"
) -> Path:
    """Write the heart plan with other rounds, quorum, deadline and id."""
    text = PLAN.read_text(encoding="utf-8")
    changes = {
        'id = "heart-disease"': f'id = "{study}"',
        "rounds = 10": f"rounds = {rounds}",
        "quorum = 3": f"quorum = {quorum}",
        # More rounds need more noise in each, and so a wider bound (P25).
        "update_norm_max = 10.0": f"update_norm_max = {10.0 * max(1.0, rounds / 10):.1f}",
        "round_deadline_s = 600": f"round_deadline_s = {deadline_s}",
    }
    for before, after in changes.items():
        assert before in text, f"the example plan has no {before!r}"
        text = text.replace(before, after)
    path = folder / f"{study}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def found_federation(folder: Path, plans: Sequence[Path], *, enrolled: int = 4) -> Deployment:
    """Found a consortium of the first generated hospitals, each approving the plans."""
    sites = heart_sites(folder / "data", uci=None)
    deployment = Deployment(folder / "f", sites)
    deployment.found("Test consortium")
    for site in sites[:enrolled]:
        deployment.enrol(site)
        for plan in plans:
            deployment.approve(site.site_id, plan)
    return deployment


def start_federation(deployment: Deployment) -> None:
    """Start the coordinator and every site and wait for the couriers' logins."""
    start(deployment, deployment.sites)


def status(deployment: Deployment, study: str) -> dict[str, Any]:
    """Return the study's report."""
    report: dict[str, Any] = deployment.coordinator_json("status", study)
    return report


def wait_rounds(deployment: Deployment, study: str, count: int, *, seconds: float = 240) -> None:
    """Wait until `count` rounds are complete."""
    deployment.wait_for(
        lambda: status(deployment, study)["rounds_complete"] >= count,
        seconds=seconds,
        what=f"round {count} of {study}",
        every_s=0.1,
    )


def wait_finished(deployment: Deployment, study: str, *, seconds: float = 400) -> dict[str, Any]:
    """Wait until the study has finished and return its report."""
    report: dict[str, Any] = {}

    def is_over() -> bool:
        report.clear()
        report.update(status(deployment, study))
        assert report["state"] != "failed", report
        return report["state"] == "finished"

    deployment.wait_for(is_over, seconds=seconds, what=f"the end of {study}")
    return report


def pids_of(*words: str) -> list[int]:
    """Return the processes whose command line contains all these words."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(folder.name))
    return found


def kill_hard(*words: str) -> list[int]:
    """Send SIGKILL to the processes whose command line contains all these words."""
    found = pids_of(*words)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def has_network_namespaces() -> bool:
    """Return whether this user may make a network namespace without interfaces."""
    try:
        done = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0
