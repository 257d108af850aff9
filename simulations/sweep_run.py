"""One run of a sweep: a cell's plan with one seed, scored on the patients that it held out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from common.ids import SiteId
from common.study.plan import StudyPlan
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.engine import EngineSettings, run_study
from simulations.exact_performance import levels_of, measure, outcomes, predict
from simulations.federation import FederationResult
from simulations.varied_plans import Cell
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import split

EVERYONE: Final = "all sites"
RunRecord: TypeAlias = dict[str, Any]
"""JSON values: `scores`, `sites` and `rounds` are lists of flat rows; the rest is of the run."""


@dataclass(frozen=True)
class SweepJob:
    """One run that is to be made.

    Args:
        digest: of everything that the result depends on.
        cell: whose plan is run.
        seed: of split, sampling and noise.
        sites: with features already made.
        settings: of the engine.
    """

    digest: str
    cell: Cell
    seed: int
    sites: tuple[VirtualSite, ...]
    settings: EngineSettings


def run_job(job: SweepJob) -> RunRecord:
    """Run one study and return its scores, participation and traffic; raises as `run_study`."""
    began, cpu = time.monotonic(), time.process_time()
    counts = _Traffic()
    result = run_study(
        job.cell.plan,
        job.sites,
        seed=job.seed,
        randomness="noiseless" if job.cell.is_noiseless else "reproducible",
        settings=job.settings,
        around_channel=counts.around,
    )
    return {
        "digest": job.digest,
        "version": result.version,
        "scores": list(_scores(job.cell.plan, job.sites, result)),
        "sites": [_site_row(job.cell, site, result) for site in job.sites],
        "rounds": list(_round_rows(counts, result)),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
    }


class _Traffic:
    """Counts the sealed bytes of every exchange, as they would cross a network."""

    def __init__(self) -> None:
        self.down: list[Counter[SiteId]] = []
        self.up: list[Counter[SiteId]] = []
        self.missing: list[int] = []

    def around(self, channel: SiteChannel) -> SiteChannel:
        """Return the channel with its bytes counted."""
        return _CountedChannel(channel, self)


class _CountedChannel:
    def __init__(self, channel: SiteChannel, traffic: _Traffic) -> None:
        self._channel = channel
        self._traffic = traffic

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask as the channel does and count what goes out and what comes."""
        down: Counter[SiteId] = Counter()
        up: Counter[SiteId] = Counter()
        self._traffic.down.append(down)
        self._traffic.up.append(up)
        self._traffic.missing.append(0)

        def counted(site_id: SiteId, make: Callable[[], bytes]) -> Callable[[], bytes]:
            def envelope() -> bytes:
                made = make()
                down[site_id] += len(made)
                return made

            return envelope

        asked = {site_id: counted(site_id, make) for site_id, make in requests.items()}
        for reply in self._channel.ask(asked, deadline_s=deadline_s):
            if isinstance(reply, Arrived):
                up[reply.site_id] += len(reply.envelope)
            else:
                self._traffic.missing[-1] += 1
            yield reply


def _round_rows(traffic: _Traffic, result: FederationResult) -> Iterator[RunRecord]:
    """Yield one row for each exchange, the final evaluation last."""
    refused = Counter(number for site in result.sites for number, _ in site.refusals)
    for place, (down, up) in enumerate(zip(traffic.down, traffic.up, strict=True)):
        is_known = place < len(result.rounds)
        number = result.rounds[place].round_number if is_known else place + 1
        asked = len(down)
        not_accepted = refused[number]
        yield {
            "round": number,
            "asked": asked,
            "accepted": asked - not_accepted,
            "refused": not_accepted - traffic.missing[place],
            "missing": traffic.missing[place],
            "bytes_down": sum(down.values()),
            "bytes_up": sum(up.values()),
        }


def _site_row(cell: Cell, site: VirtualSite, result: FederationResult) -> RunRecord:
    found = next(item for item in result.sites if item.site_id == site.site_id)
    reasons = Counter(reason for _, reason in found.refusals)
    is_promise_kept = found.statement is not None and not cell.is_noiseless
    return {
        "site": site.site_id,
        "patients": found.patients_trained + found.patients_held_out,
        "patients_trained": found.patients_trained,
        "exchanges": len(result.rounds),
        "accepted": len(result.rounds) - len(found.refusals),
        "reason": reasons.most_common(1)[0][0] if reasons else "",
        "epsilon_spent": found.statement.epsilon_spent
        if is_promise_kept and found.statement
        else None,
    }


def _scores(
    plan: StudyPlan, sites: Sequence[VirtualSite], result: FederationResult
) -> Iterator[RunRecord]:
    """Yield the figures of all held-out patients, of each site's and of each group's."""
    risks, ys = [], []
    members: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for site in sites:
        held_out = split(site.matrix(plan), plan)[1]
        risks.append(predict(plan, result.parameters, held_out))
        ys.append(outcomes(held_out))
        for name, is_member in levels_of(plan, held_out).items():
            members.setdefault(name, []).append(is_member)
        yield {"scope": "site", "name": site.site_id, **_figures(risks[-1], ys[-1])}
    risk, y = np.concatenate(risks), np.concatenate(ys)
    yield {"scope": "all", "name": EVERYONE, **_figures(risk, y)}
    for name, parts in members.items():
        chosen = np.concatenate(parts)
        yield {"scope": "group", "name": name, **_figures(risk[chosen], y[chosen])}


def _figures(risk: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> RunRecord:
    found = measure(risk, y)
    slope = found.calibration_slope
    return {
        "patients": found.patients,
        "events": found.events,
        "auroc": None if found.area is None else found.area.value,
        "accuracy": found.accuracy,
        "brier": None if found.brier is None else found.brier.value,
        "calibration_slope": None if slope is None else slope.value,
    }
