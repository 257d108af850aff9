"""What a plan would reach at each epsilon on a population that may be looked at.

A forecast is made before any hospital is asked, on public or simulated patients, by running the
whole plan through `simulations.federation`: rounds, clipping, calibrated noise and weights are the
study's own. `as_record` is the file form that `cohortium-coordinator plan calibrate` can read
without importing anything of simulations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from rich.table import Table

from common import limits
from common.canonical import Canonical, canonical_float
from common.errors import AccountingError, ConfigError
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from common.study.problems import PlanProblems
from common.study.rules import check_rules
from common.study.training_rules import honest_update_norm
from simulations.federation import run_in_memory
from simulations.randomness import noiseless, reproducible
from simulations.virtual_site import VirtualSite

EPSILONS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf)
SEEDS: Final = (1, 2, 3, 4, 5)

Population: TypeAlias = Callable[[int], Sequence[VirtualSite]]
"""The sites of one seed: other salts, so that other patients are held out, or other patients."""


@dataclass(frozen=True)
class Forecast:
    """One epsilon's figures.

    Args:
        epsilon: of the study; infinity is the same plan without noise.
        auroc_mean: mean over seeds of the mean of the sites' held-out AUROCs.
        auroc_sd: standard deviation of the same over seeds.
        seeds: how many.
    """

    epsilon: float
    auroc_mean: float
    auroc_sd: float
    seeds: int


def forecast(
    plan: StudyPlan,
    population: Population,
    *,
    epsilons: Iterable[float] = EPSILONS,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[[float, int], None] = lambda epsilon, seed: None,
) -> tuple[Forecast, ...]:
    """Return the figures of a plan at each epsilon, everything else as the plan says.

    Args:
        plan: with calibrated noise.
        population: the sites of a seed.
        epsilons: positive; infinity is allowed.
        seeds: of split, sampling and noise; two or more.
        progress: told before each run.

    Raises:
        ConfigError: with fewer than two seeds, which have no spread.
        PlanProblems: when the plan breaks a rule at one of the epsilons.
        RoundFailed: when the population has fewer sites than the quorum.
    """
    if len(seeds) < 2:
        raise ConfigError(
            "a forecast is refused",
            expected="two seeds or more, for the spread",
            arrived=str(len(seeds)),
            todo="give more seeds",
        )
    plans = {epsilon: plan_at(plan, epsilon) for epsilon in epsilons}
    lines: list[Forecast] = []
    for epsilon, changed in plans.items():
        found: list[float] = []
        for seed in seeds:
            progress(epsilon, seed)
            randomness = noiseless(seed) if math.isinf(epsilon) else reproducible(seed)
            result = run_in_memory(changed, population(seed), randomness=randomness)
            found.append(result.auroc_mean)
        lines.append(
            Forecast(epsilon, float(np.mean(found)), float(np.std(found, ddof=1)), len(seeds))
        )
    return tuple(lines)


def plan_at(plan: StudyPlan, epsilon: float) -> StudyPlan:
    """Return the plan with another epsilon and calibrated noise; raises `PlanProblems`.

    Monitoring, which comes after the study, is left out. The norm bound is raised where noise of
    a smaller epsilon needs it, as whoever writes that plan would. At infinity the plan keeps its
    own epsilon, for no noise is drawn.
    """
    changes = {"noise_multiplier": "calibrate"}
    privacy = plan.privacy.model_copy(
        update=changes if math.isinf(epsilon) else {**changes, "epsilon": epsilon}
    )
    changed = plan.model_copy(update={"privacy": privacy, "monitoring": None})
    with contextlib.suppress(AccountingError):  # which the rules tell better
        needed = 1.01 * honest_update_norm(changed, cohort_size=limits.COHORT_SIZE_MIN)
        bound = max(plan.training.update_norm_max, needed)
        training = plan.training.model_copy(update={"update_norm_max": bound})
        changed = changed.model_copy(update={"training": training})
    problems = check_rules(changed)
    if problems:
        raise PlanProblems(problems, source=f"{plan.study.id} at epsilon {epsilon:g}")
    return changed


def forecast_table(lines: Sequence[Forecast]) -> Table:
    """Return a forecast for a person to read."""
    table = Table("epsilon", "AUROC, mean of sites", "SD over seeds", "seeds")
    for line in lines:
        epsilon = "∞, no noise" if math.isinf(line.epsilon) else f"{line.epsilon:g}"
        table.add_row(epsilon, f"{line.auroc_mean:.3f}", f"{line.auroc_sd:.3f}", str(line.seeds))
    return table


def as_record(
    plan: StudyPlan, lines: Sequence[Forecast], *, population: str
) -> dict[str, Canonical]:
    """Return a forecast as canonical values, bound to the plan by its digest.

    Args:
        plan: forecast.
        lines: its figures.
        population: words that say on which patients.
    """
    return {
        "forecast_version": 1,
        "plan_digest": plan_digest(plan),
        "population": population,
        "lines": [
            {
                "epsilon": "infinity"
                if math.isinf(line.epsilon)
                else canonical_float(line.epsilon),
                "auroc_mean": canonical_float(line.auroc_mean),
                "auroc_sd": canonical_float(line.auroc_sd),
                "seeds": line.seeds,
            }
            for line in lines
        ],
    }
