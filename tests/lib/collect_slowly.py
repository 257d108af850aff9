"""Passes of a board's collector in small steps, each in a process of its own that may be killed.

Reads lines on stdin; for each it starts a pass and prints its process id, and when that process is
gone, `gone`. Importing takes seconds, so the processes are forked from this one, which has opened
nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from server.monitor_board import relay_connection
from server.monitor_board.config import BoardPaths
from server.monitor_board.relay_connection import connected
from server.monitor_board.setup import read_certificate
from tests.lib.board_home import collector_of


def main() -> None:
    """Collect for the folder in the first argument, three reports at a time."""
    relay_connection.PAGE_REPORTS = 3  # type: ignore[misc]
    paths = BoardPaths(Path(sys.argv[1]))
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _collect(paths)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)


def _collect(paths: BoardPaths) -> None:
    with connected(paths.tls_key, read_certificate(paths)) as relay:
        collector_of(paths).once(relay)
    os._exit(0)


if __name__ == "__main__":
    main()
