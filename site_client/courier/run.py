"""The courier's own process: `python -m site_client.courier.run FOLDER`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from common.errors import CohortiumError
from site_client.courier.main import read_courier_config, run_courier


def main() -> int:
    """Run the courier and return the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        run_courier(read_courier_config(Path(sys.argv[1])))
    except CohortiumError as error:
        print(str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
