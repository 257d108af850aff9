"""How a simulated study is run: which engine, how many processes, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.study.plan import StudyPlan
from server.site_channel import SiteChannel
from simulations.federation import FederationResult, Progress, run_in_memory
from simulations.randomness import noiseless, reproducible
from simulations.virtual_site import VirtualSite


@dataclass(frozen=True)
class EngineSettings:
    """Which engine runs a study, and on what."""

    engine: Literal["local", "flower"] = "local"
    workers: int | None = None
    batched: bool | None = None
    ledger: Literal["memory", "disk"] = "memory"


def run_study(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    seed: int = 1,
    randomness: Literal["reproducible", "noiseless"] = "reproducible",
    folder: Path | None = None,
    settings: EngineSettings | None = None,
    resume: bool = False,
    progress: Progress = lambda begun, rounds: None,
    around_channel: Callable[[SiteChannel], SiteChannel] = lambda channel: channel,
    rounds_max: int | None = None,
) -> FederationResult:
    """Run all rounds of a plan and score the final model."""
    return run_in_memory(
        plan,
        sites,
        randomness=noiseless(seed) if randomness == "noiseless" else reproducible(seed),
        folder=folder,
        progress=progress,
        around_channel=around_channel,
    )
