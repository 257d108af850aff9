"""The common job by our simulator, in its own process: `python -m benchmarks.peers.ours`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from common.loading import collector_at_rest, end_at_once
from common.study.plan_file import read_plan
from simulations.epsilons_ahead import epsilons_ahead

PLAN = Path(os.environ["PEERS_PLAN"])

end_at_once()  # this and what follows as `cohortium-sim run` does
with epsilons_ahead(lambda: read_plan(PLAN)), collector_at_rest():
    from benchmarks.peers.common_job import common_sites, rival_model, task
    from simulations.engine import EngineSettings, run_study


def main() -> None:
    """Run it by the engine named on the command line, or the local one, and tell the figures.

    A second word, `open`, runs it with a gate that lets everything through.
    """
    plan = read_plan(PLAN)
    settings = EngineSettings(engine="flower" if sys.argv[1:2] == ["flower"] else "local")
    sites = common_sites(plan, task.SITES)
    with _gate():
        result = run_study(plan, sites, seed=task.SEED, settings=settings)
    statement = result.sites[0].statement
    task.tell(
        auroc=task.auroc(rival_model(result.parameters)),
        ledger_epsilon=None if statement is None else statement.epsilon_spent,
        refusals=sum(len(site.refusals) for site in result.sites),
    )


def _gate() -> contextlib.AbstractContextManager[None]:
    if sys.argv[2:] != ["open"]:
        return contextlib.nullcontext()
    from benchmarks.open_gate import open_gate

    return open_gate()


if __name__ == "__main__":
    main()
