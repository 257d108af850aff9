"""A plan's fields varied over seeds: what each choice gives, what privacy costs, and who pays.

Every run is the study itself (`simulations.engine.run_study`), and has its baselines beside it
(`simulations.baselines`). A run or a baseline that was made before, with the same plan, sites,
seed, engine and software, is read back, so a killed sweep goes on where it ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from common.errors import ConfigError
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from common.study.selection_words import check_trains
from simulations import sweep_baseline_tables, sweep_tables
from simulations.baselines import ALL_BASELINES, LEFT_OUT_MAX, check_names
from simulations.engine import EngineSettings
from simulations.seeds_in_step import seeds_at_once
from simulations.sweep_baselines import SweepBaselines
from simulations.sweep_book import Book, Kept, Made, Trained
from simulations.sweep_cache import RunCache
from simulations.sweep_folder import BASELINES, RUNS, claim_sweep_folder
from simulations.sweep_jobs import Sites, sweep_jobs
from simulations.sweep_pool import SweepProcesses
from simulations.varied_plans import Cell, make_cells

if TYPE_CHECKING:
    import pandas as pd

    from simulations.sweep_figures import Drawn

SweepProgress: TypeAlias = Callable[[int, int, int], None]
"""Called as (runs and baselines done, read back of these, in the whole sweep)."""


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
class Sweep:
    """A finished sweep: its runs, and the tables of them.

    Args:
        folder: where everything was written.
        plan: which was varied.
        cells: in the order asked for.
        runs: by cell and seed.
        trained: baselines, by cell and seed.
        stopped: name of each cell that `EarlyStop` cut, and after how many seeds.
    """

    folder: Path
    plan: StudyPlan
    cells: tuple[Cell, ...]
    runs: tuple[Made, ...] = field(repr=False)
    trained: tuple[Trained, ...] = field(repr=False)
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
        return sweep_baseline_tables.with_baselines(sweep_tables.summary(self.runs), self.bought)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """One row for each cell, seed, baseline and site, and one for all sites together."""
        return sweep_baseline_tables.baselines(self.runs, self.trained)

    @cached_property
    def bought(self) -> pd.DataFrame:
        """One row for each cell and baseline: means over seeds, also of what federation bought."""
        return sweep_baseline_tables.bought(self.runs, self.trained)

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
    baselines: Sequence[str] = ALL_BASELINES,
    left_out_max: int = LEFT_OUT_MAX,
    progress: SweepProgress = lambda done, found, runs: None,
) -> Sweep:
    """Run every combination of the varied values with every seed, and its baselines.

    The folder gets the plan and what was made; `simulations.sweep_report.write_sweep` writes
    tables, figures and reports.

    Args:
        plan: whose fields are varied; or its file.
        sites: of each seed. Sites whose patients are a source hold out other patients with another
            seed; ready features keep their parts, so that seeds are of sampling and noise alone.
        vary: as `simulations.varied_plans.make_cells`.
        seeds: different ones.
        folder: kept runs are in its `runs/`, kept baselines in its `baselines/`.
        workers: processes; as many as cores when not given.
        settings: of the engine, which gets one process in each.
        stop: when to run no more seeds of a cell; every seed when not given.
        baselines: which to train beside each cell, with the run's own seed and held-out patients;
            none of them with ().
        left_out_max: sites left out in turn; of more, that many are chosen evenly by size.
        progress: told after each run and each baseline.

    Raises:
        PlanProblems: before anything runs, when a cell's plan breaks a rule.
        ConfigError: when nothing is varied, or seeds are missing or twice there, a baseline
            is unknown, or the folder holds something else.
        ServiceError: when a process ends by itself.
        CohortiumError: as `run_study`.
    """
    if not isinstance(plan, StudyPlan):
        plan = read_plan(plan)
    check_trains(plan)
    check_names(baselines)
    cells = make_cells(plan, vary)
    _check_seeds(seeds, stop)
    used = replace(settings or EngineSettings(), workers=1)
    claim_sweep_folder(folder, plan)
    beside = SweepBaselines(tuple(dict.fromkeys(baselines)), left_out_max, cells)
    kept = Kept(RunCache(folder / RUNS), RunCache(folder / BASELINES))
    book = Book(cells, beside, len(seeds), kept, progress)
    processes = max(1, min(workers or os.cpu_count() or 1, book.expected))
    with SweepProcesses(processes) as pool:
        for wave in _waves(seeds, stop):
            book.stop_losers(stop)
            going = book.going()
            together = partial(
                seeds_at_once, settings=used, runs=len(going) * len(wave), processes=processes
            )
            wanted = sweep_jobs(going, sites, wave, used, beside, together)
            for made, records in pool.run(book.missing(wanted)):
                book.keep(made, records)
    runs, trained = book.in_order()
    return Sweep(folder, plan, cells, runs, trained, dict(book.stopped))


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
