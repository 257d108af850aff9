"""How good the model was after each round, on patients whom nobody trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from common.limits import PARAMETERS_BYTES_MAX
from common.protocol.arrays import decode_parameters
from common.study.plan import StudyPlan
from common.study.scaling import model_shapes
from server.config import CoordinatorPaths
from server.round_book import Round
from simulations.baselines import estimate_columns
from simulations.exact_performance import (
    Floats,
    mean_area,
    measure,
    outcomes,
    placements,
    predict,
)
from simulations.plain_rounds import Trainee, pool
from site_client.features.matrix import split

COLUMNS: Final = (
    "round", "auroc", "auroc_low", "auroc_high", "brier", "brier_low", "brier_high",
    "calibration_slope", "calibration_slope_low", "calibration_slope_high",
)  # fmt: skip
ROUNDS_MAX: Final = 100
"""Rounds that are scored; of more, so many at even steps, the last among them."""


def learning_table(
    plan: StudyPlan, rounds: Sequence[Round], coordinator: Path, sites: Sequence[Trainee]
) -> pd.DataFrame:
    """Return one row for each training round: exact figures of the model that it made.

    AUROC is the mean of the sites' own; Brier score and calibration slope are of all held-out
    patients together, as in the table of baselines.

    Args:
        plan: of the study.
        rounds: as the coordinator recorded them.
        coordinator: its folder, where the model of each round lies.
        sites: all of the patients.
    """
    held_out = [split(site.patients, plan)[1] for site in sites]
    whole = pool("all", [Trainee("", 0, item) for item in held_out]).patients
    ends = np.cumsum([len(outcomes(item)) for item in held_out])[:-1]
    y = outcomes(whole)
    models = CoordinatorPaths(coordinator).models
    rows = []
    for item in _chosen(plan, rounds):
        model = decode_parameters(
            (models / f"{item.new_version}.safetensors").read_bytes(),
            expected=model_shapes(plan),
            bytes_max=PARAMETERS_BYTES_MAX,
        )
        rows.append({"round": item.round_number, **_figures(predict(plan, model, whole), y, ends)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _chosen(plan: StudyPlan, rounds: Sequence[Round]) -> Iterator[Round]:
    trained = [r for r in rounds if 1 <= r.round_number <= plan.training.rounds and r.new_version]
    places = np.linspace(0, len(trained) - 1, min(len(trained), ROUNDS_MAX)).round().astype(int)
    for place in places.tolist():
        yield trained[place]


def _figures(probabilities: Floats, y: Floats, ends: Any) -> dict[str, float]:
    areas = [
        area
        for own, outcome in zip(np.split(probabilities, ends), np.split(y, ends), strict=True)
        if (area := placements(own, outcome)) is not None
    ]
    found = measure(probabilities, y)
    return {
        **estimate_columns("auroc", mean_area(areas)),
        **estimate_columns("brier", found.brier),
        **estimate_columns("calibration_slope", found.calibration_slope),
    }
