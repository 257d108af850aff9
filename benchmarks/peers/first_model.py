"""Write the job's first model for the rivals: `python -m benchmarks.peers.first_model FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.common_job import common_plan, task, write_first_model

if __name__ == "__main__":
    write_first_model(common_plan(sites=task.SITES, rounds=task.ROUNDS), Path(sys.argv[1]))
