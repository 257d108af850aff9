"""Run a study on this machine: one function, whatever engine works the sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.study.plan import StudyPlan
from common.study.selection_words import check_trains
from server.site_channel import SiteChannel
from simulations.batched.training_table import SiteTable
from simulations.consortium import EngineSettings, Progress, RunOptions, run_consortium
from simulations.randomness import RandomnessKind, SiteRandomness
from simulations.study_result import FederationResult, read_result
from simulations.virtual_site import VirtualSite

__all__ = ["EngineSettings", "Progress", "run_study"]


def run_study(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    seed: int = 1,
    randomness: RandomnessKind = "reproducible",
    folder: Path | None = None,
    settings: EngineSettings | None = None,
    resume: bool = False,
    progress: Progress = lambda begun, rounds: None,
    around_channel: Callable[[SiteChannel], SiteChannel] = lambda channel: channel,
    rounds_max: int | None = None,
    table: SiteTable | None = None,
) -> FederationResult:
    """Run a plan's rounds and score the newest model at each site.

    The model is a function of plan, sites and seed: not of workers, nor of kills in between.

    Args:
        plan: checked against the plan rules; one that trains.
        sites: with different ids; as many as the quorum at least.
        seed: of noise and sampling.
        randomness: "noiseless" is epsilon = infinity.
        folder: of the run, which can then be resumed; a temporary one when None.
        settings: how the sites are worked.
        resume: go on with the run in the folder, if there is one; its features are used again.
        progress: told before each round.
        around_channel: puts something between coordinator and sites.
        rounds_max: stop cleanly when so many training rounds are complete; a resumed run goes on.
        table: of `run_in_step`, where the sites of several runs train; with one worker.

    Raises:
        RoundFailed: when too few sites answer.
        ConfigError: for two sites of one id.
        PlanError: for a plan that only selects.
        StudyStateError: for a folder with another run, or one that is not to go on.
        ServiceError: when a worker process dies; the run can be resumed.
    """
    check_trains(plan)
    options = RunOptions(
        folder=folder,
        resume=resume,
        progress=progress,
        around_channel=around_channel,
        rounds_max=rounds_max,
        settings=settings or EngineSettings(),
        table=table,
    )
    streams = SiteRandomness(seed, randomness)
    with run_consortium(plan, sites, streams, options) as (books, prepared):
        return read_result(plan, books, prepared)
