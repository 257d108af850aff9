"""What federation bought: the same patients, model and steps, trained by other company.

Each baseline trains the plan's own rounds from the plan's own start (`plain_rounds`) and is scored
on each site's own held-out patients, who are the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from common.errors import ConfigError
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from simulations.exact_performance import (
    Estimate,
    Floats,
    Performance,
    Placements,
    mean_area,
    mean_difference,
    measure,
    outcomes,
    predict,
)
from simulations.one_thread import one_thread
from simulations.plain_rounds import Company, Trainee, pool, train_companies
from simulations.randomness import reproducible
from site_client.features.matrix import split

FEDERATED: Final = "federated"
ALL_SITES: Final = "all sites"
LEFT_OUT_MAX: Final = 5
"""Sites that are left out in turn, where nothing else is said: each costs a whole federation."""

WORDS: Final = {
    "alone": "each site alone, without noise",
    "alone_private": "each site alone, with its own privacy",
    "pooled": "all patients in one place, without noise",
    "pooled_private": "all patients in one place, with privacy",
    "federated_no_noise": "the federation, without noise",
    "leave_one_site_out": "the federation without the site, at that site",
}
ALL_BASELINES: Final = tuple(WORDS)
_POOL: Final = "pool"


@dataclass(frozen=True)
class Scored:
    """One model's probabilities and outcomes of one site's held-out patients."""

    probabilities: Floats
    y: Floats

    @property
    def performance(self) -> Performance:
        """How well it does."""
        return measure(self.probabilities, self.y)


@dataclass(frozen=True)
class _Job:
    """One model to be trained, and the sites at which it is scored."""

    company: Company
    scored_at: tuple[str, ...]


@dataclass(frozen=True)
class Baselines:
    """Trained baselines.

    Args:
        table: one row for each baseline and site, and one for all sites; "federated" is first.
        seconds: that each took.
    """

    table: pd.DataFrame
    seconds: Mapping[str, float]


def check_names(names: Sequence[str]) -> None:
    """Refuse a baseline that does not exist; raises `ConfigError`."""
    unknown = [name for name in names if name not in ALL_BASELINES]
    if unknown:
        raise ConfigError(
            "a baseline is refused",
            expected=f"some of {', '.join(ALL_BASELINES)}",
            arrived=", ".join(repr(name[:80]) for name in unknown),
            todo="correct the name",
        )


def train_baselines(
    plan: StudyPlan,
    sites: Sequence[Trainee],
    federated: Parameters,
    *,
    names: Sequence[str] = ALL_BASELINES,
    seed: int,
    left_out_max: int = LEFT_OUT_MAX,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Baselines:
    """Train baselines one after another and compare them with the federation's model.

    Args:
        plan: of the study.
        sites: all of its patients.
        federated: the study's final model.
        names: which; `ALL_BASELINES` are known.
        seed: of the study, so that sampling and noise are its own.
        left_out_max: sites left out in turn; of more, that many are chosen evenly by size.
        progress: told rounds done and rounds of all baselines.

    Raises:
        ConfigError: for an unknown name.
    """
    check_names(names)
    scored = {FEDERATED: _scores(plan, [(federated, [item.site_id for item in sites])], sites)}
    seconds: dict[str, float] = {}
    rounds = plan.training.rounds
    for place, name in enumerate(names):
        begun = time.perf_counter()
        scored[name] = train_baseline(
            plan,
            sites,
            name,
            seed=seed,
            left_out_max=left_out_max,
            progress=lambda done, _, place=place: progress(  # type: ignore[misc]
                place * rounds + done, len(names) * rounds
            ),
        )
        seconds[name] = time.perf_counter() - begun
    rows = [row for name, found in scored.items() for row in _rows(name, found, scored[FEDERATED])]
    return Baselines(pd.DataFrame(rows), seconds)


def train_baseline(
    plan: StudyPlan,
    sites: Sequence[Trainee],
    name: str,
    *,
    seed: int,
    left_out_max: int = LEFT_OUT_MAX,
    is_noiseless: bool = False,
    progress: Callable[[int, int], None] = lambda done, rounds: None,
) -> dict[str, Scored]:
    """Train one baseline and return how each site's held-out patients are scored by it.

    Args:
        plan, sites, seed, left_out_max: see `train_baselines`.
        name: a known one.
        is_noiseless: whether it is of a study without noise, where no baseline has any.
        progress: told rounds done and rounds.
    """
    with one_thread():
        jobs = list(_jobs(name, sites, left_out_max))
        models = train_companies(
            plan,
            [
                replace(job.company, has_noise=False) if is_noiseless else job.company
                for job in jobs
            ],
            randomness=reproducible(seed),
            progress=progress,
        )
        trained = [(model, job.scored_at) for job, model in zip(jobs, models, strict=True)]
        return _scores(plan, trained, sites)


def _jobs(name: str, sites: Sequence[Trainee], left_out_max: int) -> Iterator[_Job]:
    everywhere = tuple(item.site_id for item in sites)
    match name:
        case "alone" | "alone_private":
            for item in sites:
                yield _Job(Company([item], name == "alone_private"), (item.site_id,))
        case "pooled" | "pooled_private":
            whole = Company([pool(_POOL, sites)], name == "pooled_private")
            yield _Job(whole, everywhere)
        case "federated_no_noise":
            yield _Job(Company(sites, has_noise=False), everywhere)
        case _:
            for left_out in _spread(sites, left_out_max) if len(sites) > 1 else []:
                others = [item for item in sites if item is not left_out]
                yield _Job(Company(others), (left_out.site_id,))


def _spread(sites: Sequence[Trainee], most: int) -> list[Trainee]:
    """Return at most so many sites, from the smallest to the largest at even steps."""
    if len(sites) <= most:
        return list(sites)
    ordered = sorted(sites, key=lambda item: (item.declared_cohort_size, item.site_id))
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int).tolist()
    return [ordered[place] for place in places]


def _scores(
    plan: StudyPlan,
    models: Iterable[tuple[Parameters, Sequence[str]]],
    sites: Sequence[Trainee],
) -> dict[str, Scored]:
    held_out = {item.site_id: split(item.patients, plan)[1] for item in sites}
    return {
        site_id: Scored(predict(plan, model, held_out[site_id]), outcomes(held_out[site_id]))
        for model, scored_at in models
        for site_id in scored_at
    }


def _rows(
    baseline: str, found: Mapping[str, Scored], federated: Mapping[str, Scored]
) -> Iterator[dict[str, Any]]:
    pairs: list[tuple[Placements, Placements]] = []
    areas: list[Placements] = []
    for site_id, scored in sorted(found.items()):
        own, with_others = scored.performance, federated[site_id].performance
        difference = None
        if own.area is not None and with_others.area is not None:
            areas.append(own.area)
            pairs.append((with_others.area, own.area))
            difference = mean_difference(pairs[-1:])
        yield performance_row(own) | {
            "baseline": baseline,
            "site_id": site_id,
            **estimate_columns("federated_minus", None if baseline == FEDERATED else difference),
        }
    probabilities = np.concatenate([item.probabilities for item in found.values()])
    y = np.concatenate([item.y for item in found.values()])
    whole = measure(probabilities, y)
    difference = None if baseline == FEDERATED else mean_difference(pairs)
    yield performance_row(whole) | {
        "baseline": baseline,
        "site_id": ALL_SITES,
        **estimate_columns("auroc", mean_area(areas)),
        **estimate_columns("federated_minus", difference),
    }


def performance_row(found: Performance) -> dict[str, Any]:
    """Return the columns that hold one model's figures on some patients."""
    return {
        "patients": found.patients,
        "events": found.events,
        **estimate_columns("auroc", None if found.area is None else found.area.estimate),
        "accuracy": _number(found.accuracy),
        **estimate_columns("brier", found.brier),
        **estimate_columns("calibration_slope", found.calibration_slope),
    }


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Return a figure and the ends of its interval as columns; not a number where there is none."""
    return {
        name: _number(None if estimate is None else estimate.value),
        f"{name}_low": _number(None if estimate is None else estimate.low),
        f"{name}_high": _number(None if estimate is None else estimate.high),
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
