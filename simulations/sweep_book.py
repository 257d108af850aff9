"""What a sweep has made so far: its runs, their baselines, and which cells go on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from simulations import sweep_tables
from simulations.seed_interval import interval
from simulations.seeds_in_step import SeedsInStep
from simulations.sweep_baselines import BaselineJob, SweepBaselines
from simulations.sweep_run import RunRecord, SweepJob
from simulations.varied_plans import Cell

if TYPE_CHECKING:
    from simulations.sweep import EarlyStop, SweepProgress
    from simulations.sweep_cache import RunCache


Job: TypeAlias = SweepJob | BaselineJob
"""A run or a baseline."""


@dataclass(frozen=True)
class Made:
    """One run of a cell: which, and what it gave."""

    cell: Cell
    seed: int
    record: RunRecord


@dataclass(frozen=True)
class Trained:
    """One baseline of a cell with one seed: which, and its scores."""

    cell: Cell
    seed: int
    baseline: str
    record: RunRecord


@dataclass(frozen=True)
class Kept:
    """Where runs and baselines are kept."""

    runs: RunCache
    baselines: RunCache


class Book:
    """What has been made so far, and how much there will be.

    Args:
        cells: of the sweep.
        baselines: of these cells.
        seeds: how many.
        kept: from before, and for later.
        progress: told after each run and each baseline.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        baselines: SweepBaselines,
        seeds: int,
        kept: Kept,
        progress: SweepProgress,
    ) -> None:
        self._kept = kept
        self.runs: list[Made] = []
        self.trained: list[Trained] = []
        self.stopped: dict[str, int] = {}
        self._cells = {cell.name: cell for cell in cells}
        self._baselines = baselines
        self._seeds = seeds
        self._progress = progress
        self._done = 0
        self._found = 0
        self.expected = self._count()

    def going(self) -> list[Cell]:
        """Return the cells that were not stopped."""
        return [cell for name, cell in self._cells.items() if name not in self.stopped]

    def stop_losers(self, stop: EarlyStop | None) -> None:
        """Stop cells whose interval is below that of the best cell of the same epsilon."""
        for cell in list(self._losers(stop)):
            self.stopped[cell.name] = len(self._of(cell))
        self.expected = self._count()

    def missing(
        self, wanted: Iterator[SeedsInStep | BaselineJob]
    ) -> Iterator[SeedsInStep | BaselineJob]:
        """Yield what was not kept; take the others from there."""
        for made in wanted:
            if isinstance(made, BaselineJob):
                if not self._find(made, self._kept.baselines):
                    yield made
                continue
            left = tuple(job for job in made.jobs if not self._find(job, self._kept.runs))
            if left:
                yield SeedsInStep(left)

    def keep(self, made: SeedsInStep | BaselineJob, records: Sequence[RunRecord]) -> None:
        """Keep what a process made, and write it down."""
        if isinstance(made, BaselineJob):
            self._kept.baselines.keep(records[0])
            self._add(made, records[0])
            return
        for record in records:
            self._kept.runs.keep(record)
        for job, record in zip(made.jobs, records, strict=True):
            self._add(job, record)

    def _find(self, job: Job, kept: RunCache) -> bool:
        record = kept.find(job.digest)
        if record is None:
            return False
        self._found += 1
        self._add(job, record)
        return True

    def _add(self, job: Job, record: RunRecord) -> None:
        if isinstance(job, SweepJob):
            self.runs.append(Made(self._cells[job.cell.name], job.seed, record))
        else:
            self.trained += [
                Trained(self._cells[answer.cell], job.seed, answer.baseline, record)
                for answer in job.answers
            ]
        self._done += 1
        self._progress(self._done, self._found, self.expected)

    def in_order(self) -> tuple[tuple[Made, ...], tuple[Trained, ...]]:
        """Return runs and baselines by cell and seed, whichever process was faster."""
        order = {name: place for place, name in enumerate(self._cells)}
        names = self._baselines.names
        return (
            tuple(sorted(self.runs, key=lambda item: (order[item.cell.name], item.seed))),
            tuple(
                sorted(
                    self.trained,
                    key=lambda item: (
                        order[item.cell.name], item.seed, names.index(item.baseline)
                    ),
                )
            ),
        )  # fmt: skip

    def _of(self, cell: Cell) -> list[Made]:
        return [run for run in self.runs if run.cell is cell]

    def _count(self) -> int:
        """Return how many runs and baselines there will be if no other cell is stopped."""
        total = 0
        for place in range(self._seeds):
            after = self.stopped.get
            cells = [c for name, c in self._cells.items() if after(name, self._seeds) > place]
            total += len(cells) + self._baselines.count(cells)
        return total

    def _losers(self, stop: EarlyStop | None) -> Iterator[Cell]:
        if stop is None or not self.runs:
            return
        found = {
            name: interval(sweep_tables.auroc_of(run) for run in self._of(cell))
            for name, cell in self._cells.items()
        }
        for cell in self.going():
            rivals = [
                found[name] for name, other in self._cells.items() if other.epsilon == cell.epsilon
            ]
            best = max(rivals, key=lambda item: -math.inf if math.isnan(item.mean) else item.mean)
            if found[cell.name].high < best.low:
                yield cell
