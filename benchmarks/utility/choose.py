"""Choose rounds, clipping and rate for each benchmark without any patient that it holds out.

    python -m benchmarks.utility.choose stroke-hospitals

With one step over all patients a round, a federation is one gradient descent on the sum of all
sites' clipped gradients, with the sum of all sites' noise: `descend` is that sum in a few lines, so
that a grid takes minutes. The benchmark itself never uses it. Who is looked at:

stroke-hospitals  patients of the 415 hospitals with fewer than 100, which are no part of the
                  benchmark, dealt to 49 hospitals of the benchmark's sizes
stroke-countries  patients who are held out in none of the benchmark's seeds; the noise is
                  multiplied by their share of a seed's training patients, so that signal and noise
                  stand as in the benchmark
heart             simulated patients of `simulations.population`
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.utility import heart, stroke
from benchmarks.utility.questions import INFINITY, Choice, accuracy, auroc
from benchmarks.utility.run import data_folder
from common.privacy.calibration import plan_mechanisms
from common.privacy.patient_parts import patient_parts
from common.study.plan import StudyPlan
from site_client.features.matrix import build_matrix, split

SEEDS: Final = range(1, 6)
"""The seeds with which `stroke-countries` is reported."""
_ROUNDS: Final = (10, 20, 40, 80)
_CLIPPING: Final = (0.3, 0.6, 1.0)
_STEPS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_DECAYS: Final = (0.0, 0.003)
_MINOR: Final = (0.25, 0.5, 1.0)
_TIE: Final = 1e-4

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Fold:
    """Patients to train on and to score, and how noise compares with the benchmark's."""

    x: Array
    y: Array
    x_scored: Array
    y_scored: Array
    site_scored: Array
    sites: int
    noise_share: float


def descend(fold: Fold, plan: StudyPlan, *, epsilon: float, seed: int) -> Array:
    """Return logits [scored] of noisy gradient descent on the sum of clipped patient gradients."""
    training, privacy = plan.training, plan.privacy
    noise = 0.0
    if epsilon != INFINITY:
        noise = plan_mechanisms(plan).train_per_round.noise_multiplier
    deviation = noise * privacy.clipping_norm * np.sqrt(fold.sites) * fold.noise_share
    rng = np.random.default_rng(seed)
    x, scored = _with_intercept(fold.x), _with_intercept(fold.x_scored)
    norms = np.linalg.norm(x, axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(training.rounds):
        residuals = 1 / (1 + np.exp(-x @ weights)) - fold.y
        length = np.abs(residuals) * norms
        kept = np.minimum(1.0, privacy.clipping_norm / np.maximum(length, 1e-12))
        gradient = x.T @ (residuals * kept) + rng.normal(0, deviation, len(weights))
        change = gradient / len(fold.y) + training.optimizer.weight_decay * weights
        weights -= training.optimizer.learning_rate * change
    return np.asarray(scored @ weights)


def _with_intercept(x: Array) -> Array:
    return np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)


Folds = Callable[[StudyPlan], Iterator[Fold]]
Figure = Callable[[Array, Array], float | None]


def hospital_folds(folder: Path) -> Folds:
    """Return folds of the small hospitals' patients, dealt to sites of the large ones' sizes."""
    rows = stroke.read_trial(folder)
    small = stroke.hospital_rows(rows, large=False)
    sizes = [len(found) for found in stroke.hospital_rows(rows, large=True).values()]
    everyone = {"small": [row for found in small.values() for row in found]}
    tables: dict[str, Any] = {}

    def folds(plan: StudyPlan) -> Iterator[Fold]:
        if not tables:
            tables.update(stroke.read_sites(everyone, plan))
        matrix = build_matrix(tables["small"], plan, salt=b"")
        site = np.repeat(np.arange(len(sizes)), sizes)
        for seed in itertools.count():
            rng = np.random.default_rng(seed)
            chosen = rng.permutation(len(matrix.y))[: len(site)]
            is_held = rng.random(len(site)) < plan.evaluation.held_out_fraction
            x, y = matrix.x[chosen], matrix.y[chosen]
            yield Fold(
                x[~is_held], y[~is_held], x[is_held], y[is_held], site[is_held], len(sizes), 1.0
            )

    return folds


def country_folds(folder: Path) -> Folds:
    """Return folds of the patients whom no seed of the benchmark holds out."""
    groups = stroke.country_rows(stroke.read_trial(folder))
    tables: dict[str, Any] = {}

    def folds(plan: StudyPlan) -> Iterator[Fold]:
        if not tables:
            tables.update(stroke.read_sites(groups, plan))
        held = held_out_part_of(plan)
        seeds = [stroke.make_sites(tables, plan, seed) for seed in SEEDS]
        x, y, total = [], [], 0
        for of_site in zip(*seeds, strict=True):
            matrices = [site.matrix(plan) for site in of_site]
            is_free = np.all([~held(item.part) for item in matrices], axis=0)
            x.append(matrices[0].x[is_free])
            y.append(matrices[0].y[is_free])
            total += len(split(matrices[0], plan)[0].y)
        everyone, outcome = np.concatenate(x), np.concatenate(y)
        for seed in itertools.count():
            is_held = np.random.default_rng(seed).random(len(outcome)) < 0.25
            yield Fold(
                everyone[~is_held],
                outcome[~is_held],
                everyone[is_held],
                outcome[is_held],
                np.zeros(int(is_held.sum()), dtype=int),
                len(groups),
                float((~is_held).sum()) / total,
            )

    return folds


def held_out_part_of(plan: StudyPlan) -> Callable[[Array], Array]:
    """Return a function from patients' parts to whether they are held out."""
    part = patient_parts(plan.evaluation).held_out
    return lambda parts: (parts >= part.first) & (parts < part.stop)


def heart_folds(plan: StudyPlan) -> Iterator[Fold]:
    """Return folds of simulated patients."""
    for seed in itertools.count():
        train, held, site = [], [], []
        for number, (site_id, rows) in enumerate(heart.generate_sites(seed).items()):
            parts = split(heart.make_matrix(rows, plan, site_id=site_id, seed=seed), plan)
            train.append(parts[0])
            held.append(parts[1])
            site.append(np.full(len(parts[1].y), number))
        yield Fold(
            np.concatenate([item.x for item in train]),
            np.concatenate([item.y for item in train]),
            np.concatenate([item.x for item in held]),
            np.concatenate([item.y for item in held]),
            np.concatenate(site),
            len(train),
            1.0,
        )


def mean_figure(
    folds: list[Fold], plan: StudyPlan, *, epsilon: float, figure: Figure
) -> tuple[float, float]:
    """Return mean and SD over folds of the mean over sites of a figure."""
    found: list[float] = []
    for seed, fold in enumerate(folds):
        probability = 1 / (1 + np.exp(-descend(fold, plan, epsilon=epsilon, seed=seed)))
        of_sites = [
            figure(fold.y_scored[fold.site_scored == site], probability[fold.site_scored == site])
            for site in np.unique(fold.site_scored)
        ]
        found.append(float(np.mean([value for value in of_sites if value is not None])))
    return float(np.mean(found)), float(np.std(found))


def choose(
    make_plan: Callable[[Choice, float], StudyPlan],
    make_folds: Folds,
    *,
    epsilon: float,
    figure: Figure,
    minor: tuple[float, ...],
) -> list[tuple[float, float, Choice]]:
    """Return the ten best choices of the grid on 4 folds, by their mean on 16 folds.

    The first is the best; but of those within `_TIE` of it the one with the fewest rounds.
    """
    folds = {
        scale: list(itertools.islice(make_folds(make_plan(Choice(1, 1, 1, 0, scale), 1.0)), 16))
        for scale in minor
    }
    grid = [
        Choice(*values) for values in itertools.product(_ROUNDS, _CLIPPING, _STEPS, _DECAYS, minor)
    ]

    def tried(choice: Choice, count: int) -> tuple[float, float, Choice]:
        plan = make_plan(choice, epsilon)
        some = folds[choice.minor_scale][:count]
        return (*mean_figure(some, plan, epsilon=epsilon, figure=figure), choice)

    first = sorted((tried(choice, 4) for choice in grid), key=lambda item: -item[0])
    again = sorted((tried(item[2], 16) for item in first[:10]), key=lambda item: -item[0])
    near = [item for item in again if item[0] >= again[0][0] - _TIE]
    chosen = min(near, key=lambda item: item[2].rounds)
    return [chosen, *(item for item in again if item is not chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("question", choices=["stroke-hospitals", "stroke-countries", "heart"])
    parser.add_argument("--epsilon", type=float, help="one of the question's; all when not given")
    arguments = parser.parse_args()
    name = arguments.question
    figure: Figure = accuracy if name == "heart" else auroc
    plan: Callable[[Choice, float], StudyPlan] = heart.heart_plan
    folds: Folds = heart_folds
    epsilons: tuple[float, ...] = (INFINITY, 1.0, 0.5)
    if name != "heart":
        is_death = name == "stroke-hospitals"
        plan = partial(stroke.stroke_plan, is_death=is_death)
        folds = (hospital_folds if is_death else country_folds)(data_folder())
        epsilons = (INFINITY, 3.0, 1.0) if is_death else (INFINITY, 3.0, 1.0, 0.5)
    minor = (1.0,) if name == "heart" else _MINOR
    for epsilon in epsilons if arguments.epsilon is None else (arguments.epsilon,):
        best = choose(plan, folds, epsilon=epsilon, figure=figure, minor=minor)
        for mean, spread, choice in best[:3]:
            print(f"epsilon {epsilon:g}: {mean:.4f} (SD {spread:.4f}) {choice}", flush=True)


if __name__ == "__main__":
    main()
