"""One run of a sweep: a cell's plan with one seed, scored on the patients that it held out."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from common.study.plan import StudyPlan
from server.round_book import Answer, Outcome
from simulations.batched.training_table import SiteTable
from simulations.engine import EngineSettings, run_study
from simulations.exact_performance import Performance, levels_of, measure, outcomes, predict
from simulations.study_result import FederationResult
from simulations.traffic import CountedChannel, Sizes, read_traffic
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


def run_job(job: SweepJob, table: SiteTable | None = None) -> RunRecord:
    """Run one study and return its scores, participation and traffic; raises as `run_study`.

    Args:
        job: the run.
        table: where its sites train, beside other runs'; None: at their own.
    """
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="cohortium-sweep-") as folder:
        sizes = Path(folder) / "traffic.jsonl"
        result = run_study(
            job.cell.plan,
            job.sites,
            seed=job.seed,
            randomness="noiseless" if job.cell.is_noiseless else "reproducible",
            settings=job.settings,
            around_channel=lambda channel: CountedChannel(channel, file=sizes),
            table=table,
        )
        traffic = read_traffic(sizes)
    # A round that was repeated counts by its last answers.
    answers = {(item.round_number, str(item.site_id)): item for item in result.answers}
    return {
        "digest": job.digest,
        "cell": job.cell.name,
        "seed": job.seed,
        "version": result.version,
        "scores": list(_scores(job.cell.plan, job.sites, result)),
        "sites": list(_site_rows(job.cell, result, list(answers.values()))),
        "rounds": list(_round_rows(list(answers.values()), traffic)),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
    }


def _round_rows(answers: Sequence[Answer], traffic: tuple[Sizes, Sizes]) -> Iterator[RunRecord]:
    """Yield one row for each round, the final evaluation last."""
    down, up = traffic
    for number in sorted({item.round_number for item in answers}):
        found = Counter(item.outcome for item in answers if item.round_number == number)
        accepted, missing = found[Outcome.ACCEPTED], found[Outcome.MISSING]
        yield {
            "round": number,
            "asked": found.total(),
            "accepted": accepted,
            "refused": found.total() - accepted - missing,
            "missing": missing,
            "bytes_down": sum(size for (of, _), size in down.items() if of == number),
            "bytes_up": sum(size for (of, _), size in up.items() if of == number),
        }


def _site_rows(
    cell: Cell, result: FederationResult, answers: Sequence[Answer]
) -> Iterator[RunRecord]:
    """Yield one row for each site: its patients, and what became of its answers."""
    for site in result.sites:
        own = [item for item in answers if item.site_id == site.site_id]
        reasons = Counter(item.number for item in own if item.outcome is not Outcome.ACCEPTED)
        # Without noise there is no promise, whatever the ledger of the simulation says.
        is_promised = site.statement is not None and not cell.is_noiseless
        yield {
            "site_id": site.site_id,
            "patients": site.patients_trained + site.patients_held_out,
            "patients_trained": site.patients_trained,
            "asked": len(own),
            "accepted": len(own) - reasons.total(),
            "reason": reasons.most_common(1)[0][0] if reasons else "",
            "epsilon_spent": site.statement.epsilon_spent
            if is_promised and site.statement
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
        yield {"scope": "site", "name": site.site_id, **figures(measure(risks[-1], ys[-1]))}
    risk, y = np.concatenate(risks), np.concatenate(ys)
    yield {"scope": "all", "name": EVERYONE, **figures(measure(risk, y))}
    for name, parts in members.items():
        chosen = np.concatenate(parts)
        yield {"scope": "group", "name": name, **figures(measure(risk[chosen], y[chosen]))}


def figures(found: Performance) -> RunRecord:
    """Return a model's figures on some patients as columns of a row, without their intervals."""
    slope = found.calibration_slope
    return {
        "patients": found.patients,
        "events": found.events,
        "auroc": None if found.area is None else found.area.value,
        "accuracy": found.accuracy,
        "brier": None if found.brier is None else found.brier.value,
        "calibration_slope": None if slope is None else slope.value,
    }
