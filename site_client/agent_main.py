"""The agent's own process: `python -m site_client.agent_main HOME`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from common.errors import CohortiumError
from common.openblas import limit_threads
from site_client.config import SitePaths, read_site_config


def main() -> int:
    """Run the agent and return the process's exit code."""
    # Forced: a library may have configured the root logger while it was imported.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    paths = SitePaths(Path(sys.argv[1]))
    try:
        # Before NumPy, which the agent's other modules load.
        limit_threads(read_site_config(paths).limits.threads)
        from site_client.agent_server import run_agent

        run_agent(paths)
    except CohortiumError as error:
        print(str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
