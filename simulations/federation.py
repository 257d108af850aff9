"""Run a study plan in this process: the real coordinator, the real sites, no network.

Keys, sealed envelopes, numbered checks, gate, ledgers and rounds are the product's own; only Flower
is not there. The simulation may look at its virtual patients, so it scores the final model on the
held-out patients exactly, which no real study can.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, RoundFailed
from common.study.plan import StudyPlan
from server.relevance import Relevance, rank_candidates
from server.selection_rounds import SelectionCounts, read_counts
from simulations.consortium import EngineSettings, Progress, RunOptions, run_consortium
from simulations.engine import run_study
from simulations.randomness import SiteRandomness, reproducible
from simulations.study_result import FederationResult, SiteOutcome, score_exactly
from simulations.virtual_site import VirtualSite

__all__ = [
    "FederationResult",
    "Progress",
    "SiteOutcome",
    "run_in_memory",
    "score_exactly",
    "select_in_memory",
]


def run_in_memory(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    randomness: SiteRandomness | None = None,
    folder: Path | None = None,
    progress: Progress = lambda begun, rounds: None,
) -> FederationResult:
    """Run all rounds of a plan in this process and score the final model.

    Args:
        plan, sites, progress: as in `run_study`.
        randomness: of each site; `reproducible(0)` when not given.
        folder: empty, for the coordinator's books and the sites' logs; removed when not given.

    Raises:
        As `run_study`.
    """
    streams = randomness or reproducible(0)
    return run_study(
        plan,
        sites,
        seed=streams.seed,
        randomness=streams.kind,
        folder=folder,
        settings=EngineSettings(workers=1),
        progress=progress,
    )


def select_in_memory(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    randomness: SiteRandomness | None = None,
    folder: Path | None = None,
) -> tuple[SelectionCounts, tuple[Relevance, ...]]:
    """Run both counts of a plan that selects; return what was counted and the ranking.

    Args, raises: as `run_in_memory`.
    """
    if plan.selection is None:
        raise ConfigError(
            "nothing can be selected",
            expected="a plan with [selection]",
            arrived="a plan that trains",
            todo="run it with `run_in_memory`",
        )
    options = RunOptions(folder=folder, settings=EngineSettings(workers=1))
    with run_consortium(plan, sites, randomness or reproducible(0), options) as (books, _):
        counts = read_counts(books, books.register.all_studies()[0])
        if counts is None:  # a count without its quorum has raised
            raise RoundFailed(
                "the selection is not complete",
                expected="two complete counts",
                arrived="fewer",
                todo="report this as a fault",
            )
        return counts, rank_candidates(plan, counts.singles, counts.joints)
