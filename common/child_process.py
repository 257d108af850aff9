"""Start a program that ends with its parent, even by kill -9: no orphan keeps a port or a lock.

`python -m common.child_process PARENT_PID PROGRAM WORDS...` asks the kernel for a signal at the
parent's death and becomes the program. A small process of its own, because Python's `preexec_fn` is
unsafe in a program with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command`, given by its full path, as such a child of ours."""
    # -P: a folder `common` where we happen to stand is not ours.
    return [sys.executable, "-P", "-m", "common.child_process", str(os.getpid()), *command]


def main() -> None:
    """Become the program; where the kernel is not Linux, without the tie to the parent."""
    parent, program, *words = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # The parent may have died before the kernel was asked.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execv(program, [program, *words])  # noqa: S606 - the supervisor's own fixed command


if __name__ == "__main__":
    main()
