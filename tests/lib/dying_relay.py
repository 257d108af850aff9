"""A relay that kills itself at a named point of storing: `python -m tests.lib.dying_relay ...`.

Words: HOME POINT COUNT, where POINT is before, inside or after the transaction of batch COUNT.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import event

from server.relay import SealedReport
from server.relay_server import serve
from server.relay_store import RelayStore

POINTS = ("before", "inside", "after")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the relay until its batch."""
    home, point, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    logging.basicConfig(level=logging.INFO)
    append, batches = RelayStore.append_reports, 0

    def dying(store: RelayStore, reports: Sequence[SealedReport]) -> list[int | Exception]:
        nonlocal batches
        batches += 1
        if batches == count and point == "before":
            _die()
        if batches == count and point == "inside":
            # Every row is written, and the transaction is not committed.
            event.listen(store._database.engine, "commit", _die)
        positions = append(store, reports)
        if batches == count:
            _die()
        return positions

    RelayStore.append_reports = dying  # type: ignore[method-assign]
    serve(home)


if __name__ == "__main__":
    main()
