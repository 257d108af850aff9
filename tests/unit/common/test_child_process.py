"""A child ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.child_process import ending_with_us

_PARENT = """
import subprocess, sys, time
from common.child_process import ending_with_us
child = subprocess.Popen(ending_with_us([sys.executable, "-c", "import time; time.sleep(60)"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the tie to the parent is Linux's prctl")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_when_its_parent_is_killed(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        assert _is_alive(child)
        parent.send_signal(number)
        parent.wait()
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_program_gets_its_words_and_its_exit_code_is_ours() -> None:
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    done = subprocess.run(
        ending_with_us([sys.executable, "-c", code, "two words", ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("['two words', '']", 7)


def test_a_program_is_found_on_the_path() -> None:
    done = subprocess.run(ending_with_us(["true"]), check=False)
    assert done.returncode == 0


def test_a_child_whose_parent_is_gone_already_never_starts_its_program() -> None:
    command = ending_with_us([sys.executable, "-c", "print('started')"])
    command[4] = str(os.getppid())  # another process in the parent's place
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 1)
