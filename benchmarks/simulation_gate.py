"""What gate and ledger cost a simulation, and what all else costs beside training: CPU seconds.

    python -m benchmarks.simulation_gate            # all jobs; some minutes on one core
    python -m benchmarks.simulation_gate --quick    # the common job, one turn of each
    python -m benchmarks.simulation_gate --whole    # the common job as whole processes, all cores

On: `run_study` in one process. Open gate: the same without the gate's checks, charge, log and
statement, and without the ledger. Bare: the same training, the same streams, the same server step
and the same noisy evaluation, called one after another with nothing between them: no envelope, no
coordinator. The three models are compared. They are measured in turn in one process, after one of
each that is not counted. With `--whole` each run is a fresh process as a researcher starts it:
imports, worker processes and all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.open_gate import open_gate
from benchmarks.peers.process_tree import Measured
from benchmarks.peers.process_tree import measure as measure_tree
from common.canonical import digest_bytes
from common.ids import SiteId
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import PATIENT_HASH_PARTS
from common.protocol.arrays import Parameters
from common.study.columns import feature_columns, initial_parameters, parameter_shapes
from common.study.plan import StudyPlan
from server.aggregation import WeightedMean
from server.server_optimizer import ServerOptimizer
from simulations.batched.training_table import TrainingTable
from simulations.engine import EngineSettings, run_study
from simulations.randomness import reproducible
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainedUpdate, TrainingEngine, TrainingTask
from site_client.training.evaluation import evaluate
from site_client.training.randomness import Randomness

SEED = 1


@dataclass(frozen=True)
class Job:
    """One study.

    Args:
        name: in the table.
        sites, patients, rounds, steps: how many.
        rows: expected of a step.
        model: of the plan.
    """

    name: str
    sites: int
    patients: int
    rounds: int
    steps: int
    rows: int
    model: dict[str, Any]


_PERCEPTRON = {"kind": "mlp", "hidden": [64, 32]}
_RESIDUAL = {"kind": "residual_mlp", "width": 128, "blocks": 3}
JOBS = (
    Job("common job: 10 sites, 10 rounds", 10, 1_000, 10, 16, 47, _PERCEPTRON),
    Job("100 sites, 2 rounds", 100, 1_000, 2, 16, 47, _PERCEPTRON),
    Job("10 sites of 20,000, residual, 64 steps of 256", 10, 20_000, 3, 64, 256, _RESIDUAL),
)


def plan_of(job: Job) -> StudyPlan:
    """Return a job's plan."""
    features = [
        {
            "kind": "numeric",
            "name": f"x{place}",
            "description": "A number",
            "codes": ["LOINC/30525-0"],
            "unit": "a",
            "plausible_range": [-10, 10],
            "clip": [-1, 1],
            "missing": "none_allowed",
        }
        for place in range(32)
    ]
    document = {
        "plan_version": 1,
        "study": {
            "id": "gate-cost",
            "title": "What the gate costs",
            "purpose": "To measure",
            "lawful_basis": "None is needed: these patients are invented",
            "contact": "tests@example.org",
        },
        "cohort": {"description": "Invented", "age_years_min": 18, "age_years_max": 100},
        "features": features,
        "label": {
            "name": "outcome",
            "description": "Invented",
            "codes": ["SNOMED/230690007"],
            "prediction_window_days": 365,
        },
        "model": job.model,
        "training": {
            "strategy": {"kind": "fedavg"},
            "rounds": job.rounds,
            "local_steps": job.steps,
            "sampling_probability": job.rows / (0.75 * job.patients),
            "optimizer": {"kind": "sgd", "learning_rate": 0.1},
            "quorum": job.sites,
            "round_deadline_s": 600,
            "update_norm_max": 1000.0,
        },
        "evaluation": {"held_out_fraction": 0.25, "score_bins": 10, "releases": 1},
        "privacy": {
            "unit": "patient",
            "neighboring_relation": "add_or_remove_one",
            "epsilon": 7.0,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": "calibrate",
        },
    }
    return StudyPlan.model_validate(document)


def sites_of(job: Job, plan: StudyPlan) -> list[VirtualSite]:
    """Return invented sites."""
    columns = feature_columns(plan)

    def features(seed: int) -> FeatureMatrix:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, (job.patients, len(columns))).astype(np.float32)
        y = (x[:, :4].sum(1) + rng.normal(0, 1, len(x)) > 0).astype(np.float32)
        return FeatureMatrix(columns, x, y, rng.integers(0, PATIENT_HASH_PARTS, len(x)))

    return [VirtualSite(f"s{n:04d}", job.patients, features(n)) for n in range(job.sites)]


def with_gate(plan: StudyPlan, sites: Sequence[VirtualSite], *, batched: bool) -> Parameters:
    """Run the study with all that a real one has."""
    settings = EngineSettings(workers=1, batched=batched)
    return run_study(plan, sites, seed=SEED, settings=settings).parameters


def without_gate(plan: StudyPlan, sites: Sequence[VirtualSite], *, batched: bool) -> Parameters:
    """Run the same arithmetic with nothing between its parts."""
    planned, table = plan_mechanisms(plan), TrainingTable()
    engines = [table.seat() if batched else DpSgdEngine() for _ in sites]
    parts = [split(site.matrix(plan), plan) for site in sites]
    streams = [reproducible(SEED)(SiteId(site.site_id)) for site in sites]
    training = plan.training
    optimizer = ServerOptimizer(training.strategy, average_decay=training.model_average_decay)
    parameters = initial_parameters(plan)
    for number in range(1, training.rounds + 1):
        mean = WeightedMean(parameter_shapes(plan))
        answers = {
            place: partial(
                _train,
                engines[place],
                parts[place][0],
                parameters,
                TrainingTask(plan, planned.train_per_round, site.declared_cohort_size),
                streams[place](number),
            )
            for place, site in enumerate(sites)
        }
        for place, trained in table.answer_together(answers):
            mean.add(trained.update, weight=sites[place].declared_cohort_size)
        parameters = optimizer.step(parameters, mean.mean())
    version = digest_bytes("benchmark")
    for place, site in enumerate(sites):
        evaluate(
            parts[place][1],
            parameters,
            plan=plan,
            model_version=version,
            mechanism=planned.evaluation_per_release,
            declared_cohort_size=site.declared_cohort_size,
            randomness=streams[place](training.rounds + 1),
        )
    return optimizer.last(parameters)


def _train(
    engine: TrainingEngine,
    patients: FeatureMatrix,
    parameters: Parameters,
    task: TrainingTask,
    streams: Randomness,
) -> TrainedUpdate:
    return engine.train(patients, parameters, task, streams)


def with_open_gate(plan: StudyPlan, sites: Sequence[VirtualSite], *, batched: bool) -> Parameters:
    """Run the study with a gate that lets everything through."""
    with open_gate():
        return with_gate(plan, sites, batched=batched)


def _cpu_s(run: Callable[[], Parameters]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(job: Job, *, batched: bool, turns: int) -> str:
    """Return a row of the table."""
    plan = plan_of(job)
    sites = sites_of(job, plan)
    exchanges = job.sites * (job.rounds + 1)
    runs = [
        partial(run, plan, sites, batched=batched)
        for run in (with_gate, with_open_gate, without_gate)
    ]
    whole, *others = [run() for run in runs]
    for other in others:
        for name, array in whole.items():
            np.testing.assert_allclose(array, other[name], rtol=0, atol=1e-6)
    seconds = [[_cpu_s(run) for run in runs] for _ in range(turns)]
    on, opened, bare = (statistics.median(of) for of in zip(*seconds, strict=True))
    gate = statistics.median(100 * (one / two - 1) for one, two, _ in seconds)
    each = statistics.median(1000 * (one - two) / exchanges for one, two, _ in seconds)
    return (
        f"| {job.name} | {'batched' if batched else 'site by site'} | {on:.2f} | {opened:.2f} "
        f"| {bare:.2f} | {gate:.0f} % | {each:.1f} |"
    )


def measure_whole(turns: int) -> str:
    """Return the common job's rows, each run a process of its own, in alternating order."""
    runs: dict[str, list[Measured]] = {"on": [], "open": []}
    environment = {**os.environ, "PEERS_SITES": "10", "PEERS_ROUNDS": "10"}
    with tempfile.TemporaryDirectory() as folder:
        making = [sys.executable, "-m", "benchmarks.peers.first_model", folder]
        subprocess.run(making, env=environment, check=True)
        environment["PEERS_PLAN"] = str(Path(folder, "plan.toml"))
        for turn in range(turns):
            for gate in sorted(runs, reverse=turn % 2 == 1):
                done = measure_tree(
                    [sys.executable, "-m", "benchmarks.peers.ours", "local", gate],
                    environment=environment,
                    cwd=Path(__file__).parents[1],
                    log=Path(folder, "log.txt"),
                    limit_s=600,
                )
                if done.exit_code != 0:
                    raise SystemExit(done.output)
                runs[gate].append(done)
    rows = ["| gate | wall s (range) | CPU s (range) |", "|---|---|---|"]
    for gate, measured in runs.items():
        cells = " | ".join(
            f"{statistics.median(of):.2f} ({min(of):.2f} to {max(of):.2f})"
            for of in ([run.wall_s for run in measured], [run.cpu_s for run in measured])
        )
        rows.append(f"| {gate} | {cells} |")
    for what in ("wall_s", "cpu_s"):
        pairs = zip(*([getattr(run, what) for run in of] for of in runs.values()), strict=True)
        more = statistics.median(100 * (on / opened - 1) for on, opened in pairs)
        rows.append(f"\nOn against open, {what}, median of pairs: {more:+.1f} %")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the common job, one turn of each")
    parser.add_argument("--whole", action="store_true", help="the common job as whole processes")
    options = parser.parse_args()
    if options.whole:
        print(measure_whole(9))
        return
    torch.set_num_threads(1)
    print(
        "| job | training | on, CPU s | open gate | bare | gate and ledger | ms a site and round |"
    )
    print("|---|---|---|---|---|---|---|")
    for job in JOBS[:1] if options.quick else JOBS:
        for batched in (True, False):
            turns = 1 if options.quick else 7
            print(measure(job, batched=batched, turns=turns), flush=True)


if __name__ == "__main__":
    main()
