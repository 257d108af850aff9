"""Write the job as our plan, and its first model, into a folder that the command line names."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.common_job import common_plan, task, write_first_model
from common.study.plan_toml import plan_toml

if __name__ == "__main__":
    plan = common_plan(sites=task.SITES, rounds=task.ROUNDS)
    Path(sys.argv[1], "plan.toml").write_text(plan_toml(plan))
    write_first_model(plan, Path(sys.argv[1], "first.npz"))
