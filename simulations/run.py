"""Run one simulated study and keep everything about it in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from common.study.plan import StudyPlan
from simulations.federation import FederationResult
from simulations.virtual_site import VirtualSite

ALL_BASELINES: Final = (
    "alone",
    "alone_private",
    "pooled",
    "pooled_private",
    "federated_no_noise",
    "leave_one_site_out",
)


@dataclass(frozen=True)
class StudyRun:
    """What one run gave.

    Args:
        folder: where everything about it lies.
        plan: that was run.
        seed: of sampling, noise and baselines.
        result: of the federation.
        rounds: one row for each round and site.
        sites: one row for each site.
        baselines: one row for each baseline and site, and one for all sites together.
    """

    folder: Path
    plan: StudyPlan
    seed: int
    result: FederationResult
    rounds: pd.DataFrame
    sites: pd.DataFrame
    baselines: pd.DataFrame


def run(
    plan: Path | StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    folder: Path | None = None,
    seed: int = 1,
    baselines: Sequence[str] = ALL_BASELINES,
    resume: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> StudyRun:
    """Run a plan on virtual sites, score it exactly, train the baselines and write the folder."""
    raise NotImplementedError


def open_run(folder: Path) -> StudyRun:
    """Return a finished run as it was written."""
    raise NotImplementedError
