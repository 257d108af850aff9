"""Runs of a sweep that differ in their seed alone, made in step: their sites train together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from simulations.batched.runs_in_step import run_in_step
from simulations.batched.stacked_rounds import SITES_AT_ONCE
from simulations.engine import EngineSettings
from simulations.sweep_run import RunRecord, SweepJob, run_job


@dataclass(frozen=True)
class SeedsInStep:
    """Runs of one cell, one or more.

    Args:
        jobs: one for each seed.
    """

    jobs: tuple[SweepJob, ...]

    def make(self) -> list[RunRecord]:
        """Make them; each is told its share of the time. Raises as `run_study`."""
        if len(self.jobs) == 1:
            return [run_job(self.jobs[0])]
        began, cpu = time.monotonic(), time.process_time()
        records = run_in_step([partial(run_job, job) for job in self.jobs])
        seconds = (time.monotonic() - began) / len(records)
        cpu_seconds = (time.process_time() - cpu) / len(records)
        return [{**item, "seconds": seconds, "cpu_seconds": cpu_seconds} for item in records]


def seeds_at_once(sites: int, *, settings: EngineSettings, runs: int, processes: int) -> int:
    """Return how many seeds to run in step: as many as fill a table, and leave no process idle.

    Args:
        sites: of a run.
        settings: of the engine.
        runs: of the sweep.
        processes: that make them.
    """
    if settings.engine != "local" or settings.batched is False:
        return 1
    return max(1, min(SITES_AT_ONCE // max(1, sites), runs // (2 * processes)))
