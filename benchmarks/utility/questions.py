"""What a utility benchmark asks: a plan for each epsilon, sites for each seed, and one figure."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split

from common.privacy.patient_parts import patient_parts
from common.study.plan import StudyPlan
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

INFINITY = math.inf
_EPSILON_WITHOUT_NOISE = 100.0  # a plan has some epsilon; a noiseless run draws no noise for it

Scored: TypeAlias = Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]
"""For each site the held-out patients' outcomes and predicted probabilities."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for one epsilon.

    Args:
        rounds: of one step over all training patients each.
        clipping_norm: of each patient's gradient.
        step: learning rate times clipping norm.
        weight_decay: L2.
        minor_scale: how wide the range of a minor feature is made: 1 is [-1, 1], 0.5 half of it.
    """

    rounds: int
    clipping_norm: float
    step: float
    weight_decay: float = 0.0
    minor_scale: float = 1.0


@dataclass(frozen=True)
class Question:
    """One benchmark.

    Args:
        name: on the command line.
        title: in the report.
        protocol: data, sites, split and figure, in one paragraph.
        figure: the number to report, of all sites' held-out patients.
        site_figure: the number of one site; None where its patients cannot tell it.
        choices: for each epsilon.
        targets: for each epsilon.
        plan: the plan of a choice and an epsilon.
        sites: the sites of a seed, which splits the patients.
    """

    name: str
    title: str
    protocol: str
    figure: Callable[[Scored], float]
    site_figure: Callable[[npt.NDArray[np.float32], npt.NDArray[np.float64]], float | None]
    choices: Mapping[float, Choice]
    targets: Mapping[float, float]
    plan: Callable[[Choice, float], StudyPlan]
    sites: Callable[[StudyPlan, int], list[VirtualSite]]


def auroc(y: npt.NDArray[np.float32], probability: npt.NDArray[np.float64]) -> float | None:
    """Return the AUROC (Mann and Whitney's U), or None when all have one outcome."""
    positive = int(y.sum())
    pairs = positive * (len(y) - positive)
    if pairs == 0:
        return None
    return float((rankdata(probability)[y == 1].sum() - positive * (positive + 1) / 2) / pairs)


def accuracy(y: npt.NDArray[np.float32], probability: npt.NDArray[np.float64]) -> float:
    """Return the share of patients on the right side of one half."""
    return float(np.mean((probability >= 0.5) == (y == 1)))


def mean_of_sites(
    figure: Callable[[npt.NDArray[np.float32], npt.NDArray[np.float64]], float | None],
) -> Callable[[Scored], float]:
    """Return the mean of a figure over the sites that have it."""

    def mean(scored: Scored) -> float:
        found = [figure(y, probability) for y, probability in scored.values()]
        return float(np.mean([value for value in found if value is not None]))

    return mean


def auroc_of_all(scored: Scored) -> float:
    """Return the AUROC of all sites' held-out patients together."""
    value = auroc(
        np.concatenate([item[0] for item in scored.values()]),
        np.concatenate([item[1] for item in scored.values()]),
    )
    return float("nan") if value is None else value


def split_stratified(
    matrix: FeatureMatrix, plan: StudyPlan, *, train_size: float, test_size: float, seed: int
) -> FeatureMatrix:
    """Return the matrix with another split than the plan's: by outcome, as scikit-learn splits.

    Published splits keep each outcome's share; the plan's salted hash knows no outcome. Not
    stratified where an outcome has two patients or fewer, as in FLamby.
    """
    numbers = np.arange(len(matrix.y))
    positive = int(matrix.y.sum())
    _, held_out = train_test_split(
        numbers,
        train_size=train_size,
        test_size=test_size,
        random_state=seed,
        stratify=matrix.y if min(positive, len(numbers) - positive) > 2 else None,
    )
    parts = patient_parts(plan.evaluation)
    part = np.full(len(numbers), parts.training.first, dtype=np.int64)
    part[held_out] = parts.held_out.first
    return replace(matrix, part=part)


def make_plan(
    name: str,
    choice: Choice,
    epsilon: float,
    *,
    minor: frozenset[str] = frozenset(),
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    more_features: Sequence[Mapping[str, Any]] = (),
) -> StudyPlan:
    """Return a plan of this folder with a choice in it, checked against every plan rule.

    Args:
        name: of its file.
        choice: rounds, clipping and rate.
        epsilon: of the plan; infinity for a run without noise.
        minor: features whose clip bounds are widened by the choice's `minor_scale`.
        changes: other values, by table and key.
        more_features: after those of the file.
    """
    document = tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    for table, values in (changes or {}).items():
        document[table].update(values)
    document["training"]["rounds"] = choice.rounds
    document["training"]["optimizer"] = {
        "kind": "sgd",
        "learning_rate": choice.step / choice.clipping_norm,
        "weight_decay": choice.weight_decay,
    }
    document["privacy"]["clipping_norm"] = choice.clipping_norm
    document["privacy"]["epsilon"] = min(epsilon, _EPSILON_WITHOUT_NOISE)
    document["features"] += [dict(feature) for feature in more_features]
    for feature in document["features"]:
        if feature["name"] in minor:
            low, high = feature["clip"]
            middle, half = (low + high) / 2, (high - low) / 2 / choice.minor_scale
            feature["clip"] = [middle - half, middle + half]
            lowest, highest = feature["plausible_range"]
            feature["plausible_range"] = [min(lowest, middle - half), max(highest, middle + half)]
    draft = draft_of(document)
    if draft.plan is None:
        raise PlanProblems(draft.problems, source=name)
    return draft.plan
