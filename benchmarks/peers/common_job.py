"""The common job as a study plan and virtual sites: the rivals' model, data, noise and averaging.

Each of our sites trains on the rivals' 1,000 patients and holds out 250 others, on which it
evaluates the final model with noise of its own; the rivals have no such evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.rivals import task
from common.privacy.mechanism import PATIENT_HASH_PARTS
from common.study.columns import feature_columns, initial_parameters
from common.study.plan import StudyPlan
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

HELD_OUT = 250
HELD_OUT_FRACTION = HELD_OUT / (task.PATIENTS + HELD_OUT)
_NAMES = [
    f"layers.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")
]  # in the order of a plain `nn.Sequential`


def common_plan(*, sites: int, rounds: int) -> StudyPlan:
    """Return the job as a plan; its rules hold."""
    features: list[dict[str, Any]] = [
        {
            "kind": "numeric",
            "name": f"x{column}",
            "description": f"Column {column}",
            "codes": ["LOINC/30525-0"],
            "unit": "1",
            "plausible_range": [-10, 10],
            "clip": [-1, 1],
            "missing": "none_allowed",
        }
        for column in range(task.COLUMNS)
    ]
    return StudyPlan.model_validate(
        {
            "plan_version": 1,
            "study": {
                "id": "common-job",
                "title": "The common job of the benchmark of frameworks",
                "purpose": "To compare simulators",
                "lawful_basis": "None is needed: these patients are invented",
                "contact": "benchmarks@example.org",
            },
            "cohort": {"description": "Invented", "age_years_min": 18, "age_years_max": 100},
            "features": features,
            "label": {
                "name": "outcome",
                "description": "Invented outcome",
                "codes": ["SNOMED/230690007"],
                "prediction_window_days": 365,
            },
            "model": {"kind": "mlp", "hidden": (64, 32)},
            "training": {
                "strategy": {"kind": "fedavg"},
                "rounds": rounds,
                "local_steps": task.STEPS,
                "sampling_probability": 1 / task.STEPS,
                "optimizer": {"kind": "sgd", "learning_rate": task.RATE},
                "quorum": sites,
                "round_deadline_s": 3600,
                # The rivals bound no update: this bound is never met.
                "update_norm_max": 1000.0,
            },
            "evaluation": {
                "held_out_fraction": HELD_OUT_FRACTION,
                "score_bins": 10,
                "releases": 1,
            },
            "privacy": {
                "unit": "patient",
                "neighboring_relation": "add_or_remove_one",
                "epsilon": 7.0,
                "delta": task.DELTA,
                "clipping_norm": task.CLIP,
                "noise_multiplier": task.NOISE,
            },
        }
    )


def common_sites(plan: StudyPlan, count: int) -> list[VirtualSite]:
    """Return the job's sites: those who train are the rivals' patients, in their order."""
    held_out_stop = round(HELD_OUT_FRACTION * PATIENT_HASH_PARTS)
    part = np.repeat([held_out_stop, 0], [task.PATIENTS, HELD_OUT]).astype(np.int64)
    found = []
    for number in range(count):
        x, y = task.site_data(number)
        more_x, more_y = task.site_data(500_000 + number, HELD_OUT)
        matrix = FeatureMatrix(
            feature_columns(plan),
            np.concatenate([x.numpy(), more_x.numpy()]),
            np.concatenate([y.numpy(), more_y.numpy()])[:, 0],
            part,
        )
        found.append(VirtualSite(f"site-{number:04d}", len(part), matrix))
    return found


def write_first_model(plan: StudyPlan, path: Path) -> None:
    """Write the plan's first model as the rivals read it."""
    first = initial_parameters(plan)
    np.savez(path, **{_rival_name(name): first[name] for name in _NAMES})


def rival_model(parameters: Any) -> Any:
    """Return our parameters in the rivals' model."""
    import torch

    model = task.make_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(parameters[_our_name(name)])))
    return model


def _rival_name(name: str) -> str:
    _, layer, part = name.split(".")
    return f"{2 * int(layer)}.{part}"


def _our_name(name: str) -> str:
    layer, part = name.split(".")
    return f"layers.{int(layer) // 2}.{part}"
