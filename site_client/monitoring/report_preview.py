"""What a report would let out and what it would cost, in a steward's words; nothing is charged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.clock import utc_text
from common.privacy.accountant import epsilon_of
from common.protocol.monitoring.report_content import content_bytes
from common.protocol.monitoring.roster import MonitoringRoster
from common.study.report_tensors import (
    ReportKind,
    ReportTensor,
    TensorFamily,
    report_tensors,
)
from site_client.release.report_release import ReportRequest, monitoring_commitment
from site_client.release.site_limits import SiteLimits

_CELL_BYTES = 4
_FAMILY_WORDS = {
    TensorFamily.SENTINELS: "patients by the value of {subject}, and without one",
    TensorFamily.SCORES: "patients by the model's score",
    TensorFamily.GROUP_SCORES: "patients by {subject} and the model's score",
    TensorFamily.OVERALL: "patients by outcome and the model's score",
    TensorFamily.GROUPS: "patients by {subject}, outcome and the model's score",
}
KIND_WORDS = {
    ReportKind.REFERENCE: "the held-out patients of training, once, for later comparison",
    ReportKind.CASE_MIX: "the patients of the period, without outcomes",
    ReportKind.OUTCOME: "the patients of the period, with their outcomes",
}


@dataclass(frozen=True)
class PreviewedTable:
    """One table of a report.

    Args:
        name: of the tensor.
        what: in plain words.
        counts: its number of cells.
        noise: standard deviation of each count's noise.
    """

    name: str
    what: str
    counts: int
    noise: float


@dataclass(frozen=True)
class ReportPreview:
    """A report that was not made.

    Args:
        study, kind, period: which one.
        about: whom it counts, in plain words.
        patients: how many they are, exactly; for the steward alone.
        patients_noise: by how much the number that leaves is off, about.
        patients_min: with a lower noisy number the report does not leave.
        tables: what is in it.
        content_bytes: its size before it is sealed, the same for every site.
        receivers: boards that can open it.
        epsilon_report: what this report spends, at `delta`.
        epsilon_account: what all reports of the plan may ever spend; charged with the first one.
        epsilon_account_max: the site's limit for that.
        delta: of the plan.
        is_charged: whether the account is charged already.
        is_made: whether the report was made already; it then leaves as it is and costs nothing.
        late_at: after when the board no longer waits; empty for the reference.
    """

    study: str
    kind: str
    period: str
    about: str
    patients: int | None
    patients_noise: float
    patients_min: int
    tables: tuple[PreviewedTable, ...]
    content_bytes: int
    receivers: tuple[str, ...]
    epsilon_report: float
    epsilon_account: float
    epsilon_account_max: float
    delta: float
    is_charged: bool
    is_made: bool
    late_at: str

    def sentences(self) -> tuple[str, ...]:
        """Return what a steward reads above and below the tables."""
        counts = sum(table.counts for table in self.tables)
        to_whom = ", ".join(self.receivers) or "nobody yet: no roster has come"
        paid = "has been charged" if self.is_charged else "is charged with the first report"
        lines = [
            f"This report counts {self.about}. {counts} noised counts leave, and nothing else "
            "about a patient; each patient is in one count of each table.",
            f"It is sealed to {to_whom}; {self.content_bytes:,} bytes, whatever the counts are.",
            f"It spends epsilon {self.epsilon_report:.4f} at delta {self.delta:g}. All reports "
            f"that the plan may ever make come to {self.epsilon_account:.4f} of your "
            f"{self.epsilon_account_max:g}; that {paid}.",
        ]
        if self.patients is not None:
            lines.append(
                f"They are {self.patients:,} patients (exact, for you alone). The number that the "
                f"board can work out is off by about {self.patients_noise:.0f}; below "
                f"{self.patients_min} the report does not leave, and what it spent stays spent."
            )
        if self.is_made:
            lines.append("It was made before: the same bytes leave, and nothing is spent again.")
        return tuple(lines)


def preview_report(
    request: ReportRequest,
    *,
    patients: int | None,
    limits: SiteLimits,
    roster: MonitoringRoster | None,
    is_charged: bool,
    is_made: bool,
    late_s: int | None,
) -> ReportPreview:
    """Return what a report would let out.

    Args:
        request: that may be made.
        patients: whom it would count, exactly; None when nobody looked.
        limits: of the site.
        roster: pinned.
        is_charged, is_made, late_s: see `ReportPreview`.
    """
    plan, kind = request.plan, request.kind
    tensors = report_tensors(plan, kind)
    account = monitoring_commitment(plan)
    spending = limits.for_monitoring(plan)
    return ReportPreview(
        study=plan.study.id,
        kind=kind.value,
        period=request.label,
        about=KIND_WORDS[kind],
        patients=patients,
        patients_noise=_patients_noise(tensors),
        patients_min=0 if plan.monitoring is None else plan.monitoring.patients_min,
        tables=tuple(
            PreviewedTable(
                tensor.name,
                _FAMILY_WORDS[tensor.family].format(subject=tensor.subject),
                tensor.cells,
                tensor.noise_multiplier,
            )
            for tensor in tensors
        ),
        content_bytes=content_bytes(_CELL_BYTES * sum(tensor.cells for tensor in tensors)),
        receivers=()
        if roster is None
        else tuple(board.board_id for board in roster.recipients(kind.value)),
        epsilon_report=epsilon_of(request.mechanisms, delta=plan.privacy.delta),
        epsilon_account=account.epsilon,
        epsilon_account_max=spending.epsilon_study_max,
        delta=spending.delta,
        is_charged=is_charged,
        is_made=is_made,
        late_at="" if late_s is None else utc_text(late_s),
    )


def _patients_noise(tensors: Sequence[ReportTensor]) -> float:
    weights = sum(1 / (tensor.cells * tensor.noise_multiplier**2) for tensor in tensors)
    return math.sqrt(1 / weights) if weights else 0.0
