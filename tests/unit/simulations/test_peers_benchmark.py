"""What the benchmark of frameworks measures is the whole tree of processes, and nothing else."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers import process_tree
from benchmarks.peers.common_job import common_plan, common_sites, task
from benchmarks.peers.environments import RIVALS, NotInstalled, Rival, python_of
from benchmarks.peers.process_tree import measure
from common.privacy.calibration import plan_mechanisms
from common.study.plan_draft import draft_of
from site_client.features.matrix import split

BURN = """
import time
kept = bytearray(60_000_000)
while time.process_time() < 0.5:
    pass
"""
IN_ITS_OWN_SESSION = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], start_new_session=True, env={{}})
"""
LEAVES_ONE = """
import subprocess, sys
script = "import time; time.sleep(60)  # left behind"
subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
"""


def run(script: str, folder: Path) -> process_tree.Measured:
    return measure(
        [sys.executable, "-c", script],
        environment=dict(os.environ),
        cwd=folder,
        log=folder / "log.txt",
        limit_s=60,
    )


def test_processor_time_and_memory_of_a_child_in_its_own_session_count(tmp_path: Path) -> None:
    measured = run(IN_ITS_OWN_SESSION, tmp_path)
    assert measured.exit_code == 0
    assert measured.cpu_s > 0.4
    assert measured.rss_mb > 60
    assert measured.processes == 2
    assert measured.left == 0


def test_a_process_that_is_left_behind_is_counted_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "END_WAIT_S", 0.2)
    assert run(LEAVES_ONE, tmp_path).left == 1
    deadline = time.monotonic() + 10
    while _sleepers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _sleepers() == []


def test_a_rival_that_is_not_installed_is_skipped_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="--no-install"):
        python_of(RIVALS[1], tmp_path, may_install=False)


@pytest.mark.slow
def test_a_rival_that_cannot_be_installed_leaves_no_half_environment(tmp_path: Path) -> None:
    rival = Rival("absent", "Absent 1.0", (str(tmp_path / "nowhere"),), "", beside=())
    with pytest.raises(NotInstalled, match=r"Absent 1\.0 cannot be installed"):
        python_of(rival, tmp_path / "environments", may_install=True)
    assert list((tmp_path / "environments").iterdir()) == []


def test_the_common_job_is_a_plan_whose_rules_hold_with_the_rivals_noise_and_patients() -> None:
    plan = common_plan(sites=2, rounds=10)
    assert draft_of(plan.model_dump(mode="json", exclude_none=True)).problems == ()
    steps = plan_mechanisms(plan).train_per_round
    assert (steps.noise_multiplier, steps.sampling_probability, steps.steps) == (1.0, 1 / 16, 16)
    trained, _ = split(common_sites(plan, 1)[0].patients, plan)  # type: ignore[arg-type]
    x, y = task.site_data(0)
    assert (trained.x == x.numpy()).all()
    assert (trained.y == y.numpy()[:, 0]).all()


def _sleepers() -> list[str]:
    found = []
    for item in Path("/proc").iterdir():
        try:
            if item.name.isdigit() and b"# left behind" in (item / "cmdline").read_bytes():
                found.append(item.name)
        except OSError:
            continue
    return found
