"""Child processes that end with their parent, even by kill -9: no orphan keeps a port or a lock.

`python -m common.child_process PARENT_PID PROGRAM WORDS...` asks the kernel for a signal at the
parent's death and becomes the program. A small process of its own, because Python's `preexec_fn` is
unsafe in a program with threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` as such a child of ours."""
    # -P: a folder `common` where we happen to stand is not ours.
    return [sys.executable, "-P", "-m", "common.child_process", str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """Let this forked process end when its parent ends, even by kill -9; Ctrl-C is the parent's.

    Args:
        parent: whose child this process was made as.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was asked.
        if os.getppid() != parent:
            os._exit(1)


def stop_children(children: Sequence[subprocess.Popen[bytes]], *, wait_s: float) -> None:
    """Stop children that lead their own sessions, last first: SIGTERM, and then SIGKILL.

    Args:
        wait_s: how long all of them together may take to end by themselves.
    """
    for child in reversed(children):
        signal_session(child, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    for child in reversed(children):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.1, deadline - time.monotonic()))
        # A leader that has gone may leave members of its group behind.
        signal_session(child, signal.SIGKILL)
        child.wait()


def signal_session(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child that leads its session, and to all in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def main() -> None:
    """Become the program; where the kernel is not Linux, without the tie to the parent."""
    parent, program, *words = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died before the kernel was asked.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execvp(program, [program, *words])  # noqa: S606 - the supervisor's own fixed command


if __name__ == "__main__":
    main()
