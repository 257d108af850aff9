"""What a sweep is to make: runs of each cell and seed with their sites, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations.engine import EngineSettings
from simulations.seeds_in_step import SeedsInStep
from simulations.sweep_baselines import SweepBaselines
from simulations.sweep_cache import run_digest
from simulations.sweep_pool import Job
from simulations.sweep_run import SweepJob
from simulations.varied_plans import Cell
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

Sites: TypeAlias = Sequence[VirtualSite] | Callable[[int], Sequence[VirtualSite]]
"""The sites, or the sites of a seed."""
_Prepared: TypeAlias = tuple[Cell, tuple[VirtualSite, ...], tuple[str, ...]]
"""A cell, a seed's sites with features already made, and their fingerprints."""


def sweep_jobs(
    cells: Sequence[Cell],
    sites: Sites,
    seeds: Sequence[int],
    settings: EngineSettings,
    beside: SweepBaselines,
    together: Callable[[int], int],
) -> Iterator[Job]:
    """Yield the runs and baselines of some seeds, a cell's runs with several seeds in step.

    Args:
        cells: those that go on.
        sites: of each seed.
        seeds: different ones.
        settings: of the engine.
        beside: which baselines.
        together: how many seeds in step, given the sites of a run.
    """
    of_rows = ("cohort", "features", "label")
    is_questioned = any(path.startswith(of_rows) for cell in cells for path in cell.values)
    waiting = list(seeds)
    while waiting:
        drawn = _of_seed(sites, waiting[0])
        now, waiting = waiting[: together(len(drawn))], waiting[together(len(drawn)) :]
        prepared = {now[0]: _prepared(cells, drawn, is_questioned=is_questioned)}
        for seed in now[1:]:
            drawn = _of_seed(sites, seed)
            prepared[seed] = _prepared(cells, drawn, is_questioned=is_questioned)
        for of_cell in zip(*prepared.values(), strict=True):
            jobs = [
                SweepJob(run_digest(cell, prints, seed, settings), cell, seed, ready, settings)
                for seed, (cell, ready, prints) in zip(now, of_cell, strict=True)
            ]
            yield SeedsInStep(tuple(jobs))
        for seed, of_seed in prepared.items():
            yield from beside.jobs(of_seed, seed)


def _prepared(
    cells: Sequence[Cell], drawn: Sequence[VirtualSite], *, is_questioned: bool
) -> list[_Prepared]:
    """Return each cell with a seed's sites; features are made once for the same question."""
    made: dict[str, tuple[tuple[VirtualSite, ...], tuple[str, ...]]] = {}
    prepared = []
    for cell in cells:
        question = cell.plan.model_dump_json(
            include={"cohort", "features", "label", "model", "evaluation", "privacy"},
            exclude={"privacy": {"epsilon", "delta", "clipping_norm", "noise_multiplier"}},
        )
        if question not in made:
            ready = tuple(
                _with_features(site, cell.plan, is_questioned=is_questioned) for site in drawn
            )
            made[question] = ready, tuple(site.fingerprint(cell.plan) for site in ready)
        prepared.append((cell, *made[question]))
    return prepared


def _of_seed(sites: Sites, seed: int) -> Sequence[VirtualSite]:
    if callable(sites):
        return sites(seed)
    return [replace(site, salt=site.salt + f"/seed {seed}".encode()) for site in sites]


def _with_features(site: VirtualSite, plan: StudyPlan, *, is_questioned: bool) -> VirtualSite:
    if isinstance(site.patients, FeatureMatrix):
        if is_questioned:
            raise ConfigError(
                f"the features of {site.site_id} cannot be varied",
                expected="patients from a source, whose rows each cell's plan can be asked of",
                arrived="features that were made already",
                todo="give the site a source, or vary only training, privacy and model",
            )
        return site
    return replace(site, patients=site.matrix(plan))
