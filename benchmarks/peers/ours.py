"""The common job by our simulator, in a process of its own: `python -m benchmarks.peers.ours`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.peers.common_job import common_plan, common_sites, rival_model, task
from simulations.federation import run_in_memory
from simulations.randomness import reproducible


def main() -> None:
    plan = common_plan(sites=task.SITES, rounds=task.ROUNDS)
    result = run_in_memory(plan, common_sites(plan, task.SITES), randomness=reproducible(task.SEED))
    if path := os.environ.get("PEERS_MODEL"):
        np.savez(Path(path), **result.parameters)
    first = result.sites[0].statement
    task.tell(
        auroc=task.auroc(rival_model(result.parameters)),
        ledger_epsilon=None if first is None else first.epsilon_spent,
        refusals=sum(len(site.refusals) for site in result.sites),
    )


if __name__ == "__main__":
    main()
