"""What envelope, checks, gate, ledger and books cost a simulation: on against off, CPU seconds.

    python benchmarks/simulation_gate.py            # all jobs; some minutes on one core
    python benchmarks/simulation_gate.py --quick    # the common job, one pair

On: `run_study` in one process. Off: the same training, the same streams, the same server step and
the same noisy evaluation, called one after another with nothing between them; the two models are
compared. Pairs are measured in turn in one process, after one of each that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

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


def _cpu_s(run: Callable[[], Parameters]) -> tuple[float, Parameters]:
    start = time.process_time()
    parameters = run()
    return time.process_time() - start, parameters


def measure(job: Job, *, batched: bool, pairs: int) -> str:
    """Return a row of the table."""
    plan = plan_of(job)
    sites = sites_of(job, plan)
    turns = job.sites * (job.rounds + 1)
    on, off = (partial(run, plan, sites, batched=batched) for run in (with_gate, without_gate))
    models = [run() for run in (on, off)]
    for name, array in models[0].items():
        np.testing.assert_allclose(array, models[1][name], rtol=0, atol=1e-6)
    seconds = [(_cpu_s(on)[0], _cpu_s(off)[0]) for _ in range(pairs)]
    slower = statistics.median(100 * (one / other - 1) for one, other in seconds)
    each = statistics.median(1000 * (one - other) / turns for one, other in seconds)
    return (
        f"| {job.name} | {'batched' if batched else 'site by site'} "
        f"| {statistics.median(one for one, _ in seconds):.2f} "
        f"| {statistics.median(other for _, other in seconds):.2f} "
        f"| {slower:.0f} % | {each:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the common job, one pair")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print("| job | training | on, CPU s | off, CPU s | more | ms a site and round |")
    print("|---|---|---|---|---|---|")
    for job in JOBS[:1] if quick else JOBS:
        for batched in (True, False):
            print(measure(job, batched=batched, pairs=1 if quick else 5), flush=True)


if __name__ == "__main__":
    main()
