"""The relay's own process: `python -m server.relay_main HOME`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from common.errors import CohortiumError
from server.relay_server import serve


def main() -> int:
    """Run the relay and return the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        serve(Path(sys.argv[1]))
    except CohortiumError as error:
        print(str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
