"""One report as the board keeps it: noisy counts, whose they are, and what they cost in privacy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.ids import Digest, SiteId, StudyId
from common.study.report_tensors import ReportKind
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
