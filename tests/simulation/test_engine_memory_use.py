"""What a simulation holds does not grow with its rounds, nor by much with its sites."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from common.ids import SiteId
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.engine import EngineSettings, run_study
from tests.lib.simulated_studies import children_of, small_plan, small_sites

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ROUNDS, FIRST = 60, 20
GROWTH_MAX_BYTES = 20 << 20
"""Over all processes. Two ledger entries of each site in each round (3 kB) are the product's own;
the rest is what malloc and SQLite keep. Distributions that nobody forgets would be 30 MB."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


class Weighs:
    """A channel that notes the memory of this process and its children before each round."""

    def __init__(self, channel: SiteChannel, weights: list[int]) -> None:
        self._channel = channel
        self._weights = weights

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        gc.collect()
        pids = [os.getpid(), *children_of(os.getpid())]
        self._weights.append(sum(resident_bytes(pid) for pid in pids))
        return self._channel.ask(requests, deadline_s=deadline_s)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_does_not_grow_with_rounds(workers: int) -> None:
    plan = small_plan(training__rounds=ROUNDS, training__local_steps=1)
    weights: list[int] = []
    run_study(
        plan,
        small_sites(plan, 4),
        settings=EngineSettings(workers=workers),
        around_channel=lambda channel: Weighs(channel, weights),
    )
    assert len(weights) == ROUNDS + 1
    assert weights[-1] - weights[FIRST] < GROWTH_MAX_BYTES


@pytest.mark.slow
def test_a_thousand_sites_run_with_few_files_open() -> None:
    plan = small_plan(training__rounds=2, training__local_steps=1, training__quorum=1000)
    files: list[int] = []

    class Counts(Weighs):
        def ask(
            self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
        ) -> Iterator[Arrived | Missing]:
            for event in super().ask(requests, deadline_s=deadline_s):
                if len(files) % 50 == 0:
                    pids = [os.getpid(), *children_of(os.getpid())]
                    files.append(max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))
                else:
                    files.append(0)
                yield event

    result = run_study(
        plan,
        small_sites(plan, 1000, patients=40),
        settings=EngineSettings(workers=2),
        around_channel=lambda channel: Counts(channel, []),
    )
    assert len(result.sites) == 1000
    assert all(site.refusals == () for site in result.sites)
    assert max(files) < 400  # 96 sites of three files each, and what Python has open
