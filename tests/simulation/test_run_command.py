"""The command as a process: killed or stopped at any time, it goes on and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.command_line import INTERRUPTED_EXIT_CODE
from tests.lib.hearing import hear_ctrl_c
from tests.lib.plans import make_plan, write_plan

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
pytestmark = pytest.mark.slow


def command(folder: Path, out: str, *more: str) -> list[str]:
    plan = folder / "plan.toml"
    if not plan.exists():
        write_plan(plan, make_plan(training__rounds=40, training__sampling_probability=0.1))
    words = ["run", str(plan), "--sites", "4", "--patients", "200", "--out", str(folder / out)]
    start = [sys.executable, "-c", "from simulations.cli import main; main()"]
    return [*start, *words, "--workers", "2", "--no-baselines", "--json", *more]


def started(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own and wait until some rounds are over."""
    with (folder / f"{out}.log").open("wb") as log:
        process = subprocess.Popen(
            command(folder, out),
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=ROOT,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509
        )
    traffic, until = folder / out / "traffic.jsonl", time.monotonic() + WAIT_S
    while not traffic.exists() or len(traffic.read_bytes().splitlines()) < 60:
        assert process.poll() is None and time.monotonic() < until, (
            folder / f"{out}.log"
        ).read_text()
        time.sleep(0.01)
    return process


def is_gone(group: int) -> bool:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def finished(folder: Path, out: str, *more: str) -> str:
    done = subprocess.run(command(folder, out, *more), capture_output=True, check=True, cwd=ROOT)
    return str(json.loads(done.stdout)["version"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def version(folder: Path) -> str:
    return finished(folder, "whole")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_command_leaves_no_process_and_goes_on_to_the_same_model(
    folder: Path, version: str, end: signal.Signals
) -> None:
    process = started(folder, end.name)
    process.send_signal(end)
    assert process.wait(WAIT_S) == INTERRUPTED_EXIT_CODE
    assert is_gone(process.pid)
    assert finished(folder, end.name, "--resume") == version


def test_a_killed_command_goes_on_to_the_same_model(folder: Path, version: str) -> None:
    process = started(folder, "killed")
    process.kill()
    process.wait(WAIT_S)
    assert is_gone(process.pid)  # the workers end with their parent
    assert finished(folder, "killed", "--resume") == version


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_attack_leaves_no_temporary_folder(tmp_path: Path, end: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    write_plan(tmp_path / "plan.toml", make_plan(training__rounds=40))
    start = [sys.executable, "-c", "from simulations.cli import main; main()", "attack"]
    process = subprocess.Popen(
        [*start, str(tmp_path / "plan.toml"), "--studies", "1000"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
        cwd=ROOT,
    )
    until = time.monotonic() + WAIT_S
    while not list(scratch.glob("cohortium-*/*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(end)
    assert process.wait(WAIT_S) == INTERRUPTED_EXIT_CODE
    assert not list(scratch.glob("cohortium-*"))
