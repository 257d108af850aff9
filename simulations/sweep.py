"""A plan's fields varied over seeds: what each choice gives, what privacy costs, and who pays.

Every run is the study itself (`simulations.engine.run_study`). A run that was made before, with the
same plan, sites, seed, engine and software, is read back, so a killed sweep goes on where it ended.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from common.errors import ConfigError
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from common.study.selection_words import check_trains
from simulations import sweep_tables
from simulations.engine import EngineSettings
from simulations.sweep_cache import RunCache, run_digest
from simulations.sweep_folder import RUNS, claim_sweep_folder
from simulations.sweep_pool import SweepProcesses
from simulations.sweep_run import RunRecord, SweepJob
from simulations.varied_plans import Cell, make_cells
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

if TYPE_CHECKING:
    import pandas as pd

    from simulations.sweep_figures import Drawn

Sites: TypeAlias = Sequence[VirtualSite] | Callable[[int], Sequence[VirtualSite]]
"""The sites, or the sites of a seed."""
SweepProgress: TypeAlias = Callable[[int, int, int], None]
"""Called as (runs done, runs read back of these, runs of the sweep)."""


@dataclass(frozen=True)
class EarlyStop:
    """Runs no more seeds of a cell that is clearly not the best of its epsilon.

    Before each seed after the first `seeds_min`: a cell is stopped when the upper end of its
    interval is below the lower end of the interval of the best cell with the same epsilon. So a
    curve over epsilon is never cut. What is decided depends on earlier seeds alone, not on which
    process was faster. The best cell was found with the seeds of its own figure, which therefore
    flatters it: say so, or run it again with fresh seeds.

    Args:
        seeds_min: seeds that every cell gets; two or more.
    """

    seeds_min: int = 3


@dataclass(frozen=True)
class Made:
    """One run of a cell: which, and what it gave."""

    cell: Cell
    seed: int
    record: RunRecord


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its runs, and the tables of them.

    Args:
        folder: where everything was written.
        plan: which was varied.
        cells: in the order asked for.
        runs: by cell and seed.
        stopped: name of each cell that `EarlyStop` cut, and after how many seeds.
    """

    folder: Path
    plan: StudyPlan
    cells: tuple[Cell, ...]
    runs: tuple[Made, ...] = field(repr=False)
    stopped: Mapping[str, int]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each cell, seed and site: figures, participation, epsilon."""
        return sweep_tables.table(self.runs)

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """One row for each cell and seed: figures of all sites' held-out patients together."""
        return sweep_tables.by_seed(self.runs)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each cell: means over seeds with 95 % intervals."""
        return sweep_tables.summary(self.runs)

    @cached_property
    def cost(self) -> pd.DataFrame:
        """One row for each cell and site or group: AUROC lost against the reference epsilon."""
        return sweep_tables.cost_of_privacy(self.runs)

    @cached_property
    def participation(self) -> pd.DataFrame:
        """One row for each cell and site: in which share of the exchanges it was accepted."""
        return sweep_tables.participation(self.runs)

    @cached_property
    def communication(self) -> pd.DataFrame:
        """One row for each cell and round: bytes to and from all sites, and what was accepted."""
        return sweep_tables.communication(self.runs)

    def figures(self) -> dict[str, Drawn]:
        """Return the figures by name; a notebook shows each."""
        from simulations.sweep_figures import draw

        return {item.name: item for item in draw(self)}

    def _repr_html_(self) -> str:
        title = f"<p>{len(self.runs)} runs of {len(self.cells)} cells in {self.folder.name}</p>"
        return title + str(self.summary.to_html(index=False, float_format="{:.4f}".format))


def sweep(
    plan: Path | StudyPlan,
    sites: Sites,
    *,
    vary: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    folder: Path,
    workers: int | None = None,
    settings: EngineSettings | None = None,
    stop: EarlyStop | None = None,
    progress: SweepProgress = lambda done, found, runs: None,
) -> Sweep:
    """Run every combination of the varied values with every seed; write plan and kept runs.

    `simulations.sweep_report.write_sweep` writes tables, figures and reports.

    Args:
        plan: whose fields are varied; or its file.
        sites: of each seed. Sites whose patients are a source hold out other patients with another
            seed; ready features keep their parts, so that seeds are of sampling and noise alone.
        vary: as `simulations.varied_plans.make_cells`.
        seeds: different ones.
        folder: kept runs are in its `runs/`.
        workers: processes; as many as cores when not given.
        settings: of the engine, which gets one process in each.
        stop: when to run no more seeds of a cell; every seed when not given.
        progress: told after each run.

    Raises:
        PlanProblems: before anything runs, when a cell's plan breaks a rule.
        ConfigError: when nothing is varied, or seeds are missing or twice there, or the folder
            holds something else.
        ServiceError: when a process ends by itself.
        CohortiumError: as `run_study`.
    """
    if not isinstance(plan, StudyPlan):
        plan = read_plan(plan)
    check_trains(plan)
    cells = make_cells(plan, vary)
    _check_seeds(seeds, stop)
    used = replace(settings or EngineSettings(), workers=1)
    claim_sweep_folder(folder, plan)
    cache = RunCache(folder / RUNS)
    book = _Book(cells, len(seeds), progress)
    processes = max(1, min(workers or os.cpu_count() or 1, len(cells) * len(seeds)))
    with SweepProcesses(processes) as pool:
        for wave in _waves(seeds, stop):
            for cell in book.losers(stop):
                book.stopped.setdefault(cell.name, len(book.of(cell)))
            jobs = book.missing(_jobs(book.going(), sites, wave, used), cache)
            for job, record in pool.run(jobs):
                cache.keep(record)
                book.add(job, record)
    order = {cell.name: place for place, cell in enumerate(cells)}
    runs = sorted(book.runs, key=lambda run: (order[run.cell.name], run.seed))
    return Sweep(folder, plan, cells, tuple(runs), dict(book.stopped))


def _check_seeds(seeds: Sequence[int], stop: EarlyStop | None) -> None:
    if not seeds or len(set(seeds)) != len(seeds) or (stop is not None and stop.seeds_min < 2):
        raise ConfigError(
            "a sweep is refused",
            expected="different seeds, one or more; two or more before any cell is stopped",
            arrived=f"seeds {', '.join(map(str, seeds)) or 'none'}",
            todo="give other seeds",
        )


def _waves(seeds: Sequence[int], stop: EarlyStop | None) -> Iterator[Sequence[int]]:
    """Yield seeds to run together: decisions are made between waves."""
    first = len(seeds) if stop is None else min(stop.seeds_min, len(seeds))
    yield seeds[:first]
    for seed in seeds[first:]:
        yield [seed]


def _jobs(
    cells: Sequence[Cell], sites: Sites, seeds: Sequence[int], settings: EngineSettings
) -> Iterator[SweepJob]:
    """Yield the runs of some seeds; features are made once for cells that ask the same question."""
    of_rows = ("cohort", "features", "label")
    is_questioned = any(path.startswith(of_rows) for cell in cells for path in cell.values)
    for seed in seeds:
        drawn = _of_seed(sites, seed)
        made: dict[str, tuple[tuple[VirtualSite, ...], tuple[str, ...]]] = {}
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
            ready, prints = made[question]
            yield SweepJob(run_digest(cell, prints, seed, settings), cell, seed, ready, settings)


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


class _Book:
    """What has been run so far."""

    def __init__(self, cells: Sequence[Cell], seeds: int, progress: SweepProgress) -> None:
        self.runs: list[Made] = []
        self.stopped: dict[str, int] = {}
        self._cells = cells
        self._seeds = seeds
        self._progress = progress
        self._found = 0

    def going(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.name not in self.stopped]

    def of(self, cell: Cell) -> list[Made]:
        return [run for run in self.runs if run.cell is cell]

    def add(self, job: SweepJob, record: RunRecord) -> None:
        own = next(cell for cell in self._cells if cell.name == job.cell.name)
        self.runs.append(Made(own, job.seed, record))
        cut = sum(self._seeds - after for after in self.stopped.values())
        self._progress(len(self.runs), self._found, len(self._cells) * self._seeds - cut)

    def missing(self, jobs: Iterator[SweepJob], cache: RunCache) -> Iterator[SweepJob]:
        """Yield the jobs that are not in the cache; take the others from there."""
        for job in jobs:
            record = cache.find(job.digest)
            if record is None:
                yield job
            else:
                self._found += 1
                self.add(job, record)

    def losers(self, stop: EarlyStop | None) -> Iterator[Cell]:
        """Yield cells whose interval is below that of the best cell of the same epsilon."""
        if stop is None or not self.runs:
            return
        found = {
            cell.name: sweep_tables.interval([sweep_tables.auroc_of(run) for run in self.of(cell)])
            for cell in self._cells
        }
        for cell in self.going():
            rivals = [found[other.name] for other in self._cells if other.epsilon == cell.epsilon]
            best = max(rivals, key=lambda item: -math.inf if math.isnan(item.mean) else item.mean)
            if found[cell.name].high < best.low:
                yield cell
