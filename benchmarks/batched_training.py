"""Sites trained together against one after another: CPU milliseconds a site and round.

    python benchmarks/batched_training.py

One thread, training alone (no gate, no envelope); site by site is `DpSgdEngine`, together is what
a simulation does by itself. The least of three turns of each, in turn, after one not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.simulation_gate import Job, plan_of, sites_of
from common.privacy.calibration import plan_mechanisms
from common.study.columns import initial_parameters
from simulations.batched.training_table import TrainingTable
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness

MODELS: dict[str, dict[str, Any]] = {
    "logistic regression": {"kind": "logistic_regression"},
    "MLP 64, 32": {"kind": "mlp", "hidden": [64, 32]},
    "residual MLP 64, 2 blocks": {"kind": "residual_mlp", "width": 64, "blocks": 2},
}
SMALL = "1,000 sites of 50 to 200 patients"
JOBS = (
    Job("10 sites of 1,000 patients, batch 64", 10, 1_000, 1, 16, 64, {}),
    Job("100 sites of 1,000 patients, batch 64", 100, 1_000, 1, 16, 64, {}),
    Job(SMALL, 1_000, 200, 1, 16, 16, {}),
    Job("10 sites of 20,000 patients, batch 256", 10, 20_000, 1, 16, 256, {}),
)


def measure(job: Job) -> str:
    """Return a row of the table."""
    plan = plan_of(job)
    sites = [_of_its_size(site, job) for site in sites_of(job, plan)]
    mechanism = plan_mechanisms(plan).train_per_round
    tasks = [TrainingTask(plan, mechanism, site.declared_cohort_size) for site in sites]
    patients = [split(site.matrix(plan), plan)[0] for site in sites]
    base, table = initial_parameters(plan), TrainingTable()

    def turn(seats: list[DpSgdEngine] | None) -> None:
        trainers: Sequence[TrainingEngine] = seats or [table.seat() for _ in sites]
        asked: dict[int, Callable[[], object]] = {
            place: partial(
                trainer.train,
                patients[place],
                base,
                tasks[place],
                Randomness.reproducible(place),
            )
            for place, trainer in enumerate(trainers)
        }
        if seats is None:
            list(table.answer_together(asked))
            return
        for answer in asked.values():
            answer()

    engine = DpSgdEngine()  # one plan, no momentum: one engine serves all sites
    runs = (partial(turn, [engine] * len(sites)), partial(turn, None))
    for run in runs:
        run()
    each = [[_cpu_ms(run) / len(sites) for run in runs] for _ in range(3)]
    alone, together = (min(column) for column in zip(*each, strict=True))
    return f"{alone:.2f} | {together:.2f} | {alone / together:.1f}"


def _of_its_size(site: VirtualSite, job: Job) -> VirtualSite:
    matrix = site.patients
    if job.name != SMALL or not isinstance(matrix, FeatureMatrix):
        return site
    count = int(np.random.default_rng(int(site.site_id[1:])).integers(50, 201))
    kept = replace(matrix, x=matrix.x[:count], y=matrix.y[:count], part=matrix.part[:count])
    return replace(site, patients=kept, declared_cohort_size=count)


def _cpu_ms(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| model | sites | site by site | together | times |")
    print("|---|---|---|---|---|")
    for name, model in MODELS.items():
        for job in JOBS:
            print(f"| {name} | {job.name} | {measure(replace(job, model=model))} |", flush=True)


if __name__ == "__main__":
    main()
