"""The baselines of a sweep: which cells have which, each trained once for all that share it.

A baseline without noise is that of every cell whose plan differs in the noise alone; in a cell
without noise no baseline has any, so that the private ones are those without.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

from common.study.plan import StudyPlan
from simulations.baselines import Scored, train_baseline
from simulations.exact_performance import measure
from simulations.plain_rounds import Trainee
from simulations.sweep_cache import made_digest
from simulations.sweep_run import EVERYONE, RunRecord, figures
from simulations.varied_plans import Cell
from simulations.virtual_site import VirtualSite

_LEAVE_OUT: Final = "leave_one_site_out"
_NO_NOISE: Final = {
    "alone": "alone",
    "pooled": "pooled",
    "federated_no_noise": "federated_no_noise",
}
_NO_NOISE_IN_A_NOISELESS_CELL: Final = {
    **_NO_NOISE, "alone_private": "alone", "pooled_private": "pooled", _LEAVE_OUT: _LEAVE_OUT,
}  # fmt: skip
_OF_NOISE: Final[dict[str, bool | set[str]]] = {
    "privacy": {"epsilon", "delta", "noise_multiplier"},
    # By a rule of the plans it lets every honest update pass, the larger ones with noise too.
    "training": {"update_norm_max"},
    "monitoring": True,
}

Kind: TypeAlias = tuple[str, bool, str]
"""The name of what is trained, whether it has no noise, and the plan as far as it matters to it."""


@dataclass(frozen=True)
class Answer:
    """A cell and its baseline that one training answers."""

    cell: str
    baseline: str


@dataclass(frozen=True)
class BaselineJob:
    """One baseline that is to be trained.

    Args:
        digest: of everything that the result depends on.
        kind: what is trained.
        plan: of the first cell that asked.
        seed: of split, sampling and noise: the run's own.
        sites: with features already made.
        left_out_max: sites left out in turn.
        answers: every cell and baseline that shares it.
    """

    digest: str
    kind: Kind
    plan: StudyPlan
    seed: int
    sites: tuple[VirtualSite, ...]
    left_out_max: int
    answers: tuple[Answer, ...]

    def make(self) -> list[RunRecord]:
        """Train it and return its scores, rows as those of a run, as one record."""
        began, cpu = time.monotonic(), time.process_time()
        name, is_noiseless, _ = self.kind
        scored = train_baseline(
            self.plan,
            [Trainee(s.site_id, s.declared_cohort_size, s.matrix(self.plan)) for s in self.sites],
            name,
            seed=self.seed,
            left_out_max=self.left_out_max,
            is_noiseless=is_noiseless,
        )
        record = {
            "digest": self.digest,
            "baseline": name,
            "seed": self.seed,
            "scores": list(_scores(scored)),
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu,
        }
        return [record]


def _scores(scored: dict[str, Scored]) -> Iterator[RunRecord]:
    for site_id, found in sorted(scored.items()):
        yield {"scope": "site", "name": site_id, **figures(found.performance)}
    whole = measure(
        np.concatenate([item.probabilities for item in scored.values()]),
        np.concatenate([item.y for item in scored.values()]),
    )
    # The sites' models may differ: one ranking of all their patients would say nothing.
    yield {"scope": "all", "name": EVERYONE, **figures(whole), "auroc": None}


@dataclass(frozen=True)
class SweepBaselines:
    """Which baselines a sweep's cells have.

    Args:
        names: of `simulations.baselines.ALL_BASELINES`.
        left_out_max: sites left out in turn.
        cells: of the sweep.
    """

    names: tuple[str, ...]
    left_out_max: int
    cells: tuple[Cell, ...]

    @cached_property
    def _kinds(self) -> dict[str, dict[str, Kind]]:
        return {
            cell.name: {name: self._kind(cell, name) for name in self.names} for cell in self.cells
        }

    def _kind(self, cell: Cell, name: str) -> Kind:
        known = _NO_NOISE_IN_A_NOISELESS_CELL if cell.is_noiseless else _NO_NOISE
        if name not in known:
            return name, False, cell.plan.model_dump_json(exclude={"monitoring": True})
        return known[name], True, cell.plan.model_dump_json(exclude=_OF_NOISE)

    def count(self, cells: Iterable[Cell]) -> int:
        """Return how many are trained for these cells with each seed."""
        return len({kind for cell in cells for kind in self._kinds[cell.name].values()})

    def jobs(
        self,
        prepared: Iterable[tuple[Cell, tuple[VirtualSite, ...], Sequence[str]]],
        seed: int,
    ) -> Iterator[BaselineJob]:
        """Yield what is to be trained with a seed, each once.

        Args:
            prepared: each cell with its sites and their fingerprints.
            seed: of its runs.
        """
        asked: dict[Kind, list[Answer]] = {}
        first: dict[Kind, tuple[Cell, tuple[VirtualSite, ...], Sequence[str]]] = {}
        for cell, sites, prints in prepared:
            for name, kind in self._kinds[cell.name].items():
                asked.setdefault(kind, []).append(Answer(cell.name, name))
                first.setdefault(kind, (cell, sites, prints))
        for kind, answers in asked.items():
            cell, sites, prints = first[kind]
            digest = self._digest(kind, prints, seed)
            yield BaselineJob(
                digest, kind, cell.plan, seed, sites, self.left_out_max, tuple(answers)
            )

    def _digest(self, kind: Kind, prints: Sequence[str], seed: int) -> str:
        name, is_noiseless, plan = kind
        return made_digest(
            "cohortium simulated baseline",
            {
                "plan": plan,
                "baseline": name,
                "is_noiseless": is_noiseless,
                "left_out_max": self.left_out_max if name == _LEAVE_OUT else None,
                "sites": list(prints),
                "seed": seed,
            },
        )
