"""One report as the board keeps it: noisy counts, whose they are, and what they cost in privacy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.ids import Digest, SiteId, StudyId
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, ReportTensor, report_tensors
from server.monitor_board.statistics.noisy_counts import NoisyCounts


@dataclass(frozen=True)
class KeptReport:
    """One accepted report of one site.

    Args:
        kind: what it tells of its period.
        period: "reference", "2026-W07", "2026-02" or "2026-Q1".
        sequence: its place in the site's chain, from 1.
        received_at_s: when the relay stored it, Unix time.
        tensors: by name, as `report_tensors(plan, kind)` names and shapes them.
        model_version: which model it judges.
        epsilon_spent, epsilon_remaining: of the site's monitoring account, at `delta`.
        digest: of its envelope; two boards have the same.
        is_flagged: no honest site sends it; it is shown by itself and enters no pool.
    """

    study_id: StudyId
    site_id: SiteId
    kind: ReportKind
    period: str
    sequence: int
    received_at_s: int
    tensors: Mapping[str, NoisyCounts]
    model_version: Digest
    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    digest: Digest
    is_flagged: bool = False


@dataclass(frozen=True)
class ReportLayout:
    """Where each tensor of one kind of report lies in its row of counts.

    Args:
        places: tensor and first cell, by the tensor's name.
        cells: of all tensors.
    """

    places: Mapping[str, tuple[ReportTensor, int]]
    cells: int


def report_layout(plan: StudyPlan, kind: ReportKind) -> ReportLayout:
    """Return the layout of one kind of report of a plan."""
    places: dict[str, tuple[ReportTensor, int]] = {}
    start = 0
    for tensor in report_tensors(plan, kind):
        places[tensor.name] = (tensor, start)
        start += tensor.cells
    return ReportLayout(places, start)


class CountedTensors(Mapping[str, NoisyCounts]):
    """A report's tensors by name, cut out of its row of counts when they are asked for.

    A board loads a report in a microsecond this way, and a year of a thousand sites in seconds.
    """

    def __init__(self, layout: ReportLayout, counts: npt.NDArray[np.int32 | np.int64]) -> None:
        self._layout = layout
        self._counts = counts

    def __getitem__(self, name: str) -> NoisyCounts:
        tensor, start = self._layout.places[name]
        cells = self._counts[start : start + tensor.cells].astype(np.int64)
        return NoisyCounts(cells.reshape(tensor.shape), tensor.noise_multiplier)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.places  # Mapping's own would cut the tensor out

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.places)

    def __len__(self) -> int:
        return len(self._layout.places)
