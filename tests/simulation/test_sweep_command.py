"""`cohortium-sim sweep`, as a person starts it and as it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.command_line import run_command
from simulations.cli import app
from tests.lib.hearing import hear_ctrl_c
from tests.lib.plans import make_plan, write_plan

PROGRAM = "from simulations.cli import main; main()"


def plan_file(folder: Path, **changes: object) -> Path:
    made = {"training__rounds": 2, "evaluation__releases": 1, "training__local_steps": 1}
    file = folder / "plan.toml"
    write_plan(file, make_plan(**{**made, **changes}))
    return file


def words(plan: Path, out: Path, *more: str) -> list[str]:
    size = ["--sites", "2", "--patients", "80", "--workers", "1"]
    return ["sweep", str(plan), "--vary", "privacy.epsilon=1,inf", *size, "--out", str(out), *more]


def test_the_command_writes_everything_and_tells_it_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(plan_file(tmp_path), tmp_path / "out", "--seeds", "2", "--json")
    assert run_command(app, name="cohortium-sim", arguments=arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["privacy.epsilon"] for row in told["summary"]] == [1, "infinity"]
    assert told["runs"] == 4
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "tables" / "cost.parquet").is_file()


def test_a_wrong_value_is_refused_in_the_plan_rules_words_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(plan_file(tmp_path), tmp_path / "out", "--vary", "training.rounds=0,2")
    assert run_command(app, name="cohortium-sim", arguments=arguments) == 10
    told = capsys.readouterr().err
    assert "[P4] privacy.epsilon=1, training.rounds=0: training.rounds" in told
    assert "greater than or equal to 1" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("vary", ["privacy.epsilon", "=1", "training.rounds=", "model={kind=1"])
def test_what_cannot_be_varied_is_refused(tmp_path: Path, vary: str) -> None:
    arguments = ["sweep", str(plan_file(tmp_path)), "--vary", vary, "--out", str(tmp_path / "out")]
    assert run_command(app, name="cohortium-sim", arguments=arguments) == 11


def _ours(folder: Path) -> list[int]:
    """Return the processes whose environment names this test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"SWEEP_TEST={folder}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_sweep_leaves_no_process_and_no_patients_and_goes_on_where_it_was(
    tmp_path: Path, how: signal.Signals
) -> None:
    plan = plan_file(tmp_path, training__rounds=4)
    out = tmp_path / "out"
    arguments = [*words(plan, out, "--json"), "--workers", "2", "--seeds", "6"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "SWEEP_TEST": str(tmp_path), "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    ) as started:
        while started.poll() is None and len(list(out.glob("runs/*.json"))) < 2:
            time.sleep(0.02)
        started.send_signal(how)
        started.wait(60)
    kept = len(list(out.glob("runs/*.json")))
    assert 2 <= kept < 12
    for _ in range(300):
        if not _ours(tmp_path):
            break
        time.sleep(0.1)
    assert not _ours(tmp_path)
    assert not list(scratch.glob("cohortium-*"))
    if how is not signal.SIGKILL:
        return
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, timeout=250
    )
    assert json.loads(ended.stdout)["runs"] == 12
    assert len(list(out.glob("runs/*.json"))) == 12
