"""A group of processes: started with a log each, stopped to the last descendant."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from common.errors import ServiceError
from simulations.processes import ProcessGroup

_GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_leaving_the_group_ends_children_and_grandchildren(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        child = group.start("one", [sys.executable, "-c", _GRANDCHILD], environment=os.environ)
        deadline = time.monotonic() + 20
        while not (text := (tmp_path / "one.log").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert group.is_running("one")
    assert child.poll() is not None
    while _is_alive(int(text)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_child_runs_no_more(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("one", [sys.executable, "-c", _GRANDCHILD], environment=os.environ)
        group.kill("one")
        assert not group.is_running("one")


def test_a_program_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group, pytest.raises(ServiceError, match="does not start"):
        group.start("one", ["/no/such/program"], environment=os.environ)
