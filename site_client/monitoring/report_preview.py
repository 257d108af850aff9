"""What a report would let out and what it would cost, in a steward's words; nothing is charged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.clock import utc_text
from common.privacy.accountant import epsilon_of
from common.protocol.monitoring.report_content import content_bytes
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B
from common.protocol.monitoring.roster import MonitoringRoster
from common.secure_sum.field import ELEMENT_BYTES
from common.secure_sum.shares import SEED_BYTES
from common.study.plan import StudyPlan
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
        content_bytes: its size before it is sealed, of both shares together in mode `sum`; the same
            for every site.
        receivers: boards that can open it; in mode `sum` aggregators, each one share.
        sum_sites_min: in mode `sum`, of how many sites at least the board gets the sum; else 0.
        epsilon_report: what this report spends, at `delta`.
        epsilon_account: what all reports of the plan may ever spend; charged with the first one.
        epsilon_account_max: the site's limit for that.
        delta: of the plan.
        is_charged: whether the account is charged already.
        is_made: whether the report was made already; it then leaves as it is and costs nothing.
        is_withheld: whether it was computed and let nothing out, for good.
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
    sum_sites_min: int
    epsilon_report: float
    epsilon_account: float
    epsilon_account_max: float
    delta: float
    is_charged: bool
    is_made: bool
    is_withheld: bool
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
            *self._of_a_sum(),
            f"It spends epsilon {self.epsilon_report:.4f} at delta {self.delta:g}. All reports "
            f"that the plan may ever make come to {self.epsilon_account:.4f} of your "
            f"{self.epsilon_account_max:g}; that {paid}.",
        ]
        if self.patients is not None:
            whose = "the sum takes" if self.sum_sites_min else "the board can work out"
            lines.append(
                f"They are {self.patients:,} patients (exact, for you alone). The number that "
                f"{whose} is off by about {self.patients_noise:.0f}; below "
                f"{self.patients_min} the report does not leave, and what it spent stays spent."
            )
        if self.is_withheld:
            lines.append("It was computed before and withheld for good: nothing leaves.")
        elif self.is_made:
            lines.append("It was made before: the same bytes leave, and nothing is spent again.")
        return tuple(lines)

    def _of_a_sum(self) -> tuple[str, ...]:
        if not self.sum_sites_min:
            return ()
        return (
            "Each receiver gets one of two shares, which alone say nothing; the board gets the sum "
            f"over at least {self.sum_sites_min} sites. The epsilon below holds even if the "
            "receivers put their shares together.",
        )


def preview_report(
    request: ReportRequest,
    *,
    patients: int | None,
    limits: SiteLimits,
    roster: MonitoringRoster | None,
    is_charged: bool,
    is_made: bool,
    is_withheld: bool,
    late_s: int | None,
) -> ReportPreview:
    """Return what a report would let out.

    Args:
        request: that may be made.
        patients: whom it would count, exactly; None when nobody looked.
        limits: of the site.
        roster: pinned.
        is_charged, is_made, is_withheld, late_s: see `ReportPreview`.
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
        content_bytes=_size(plan, sum(tensor.cells for tensor in tensors)),
        receivers=()
        if roster is None
        else tuple(
            board.board_id
            for sealed in ((SHARE_A, SHARE_B) if _is_sum(plan) else (kind.value,))
            for board in roster.recipients(sealed)
        ),
        sum_sites_min=plan.monitoring.sum_sites_min if plan.monitoring and _is_sum(plan) else 0,
        epsilon_report=epsilon_of(request.mechanisms, delta=plan.privacy.delta),
        epsilon_account=account.epsilon,
        epsilon_account_max=spending.epsilon_study_max,
        delta=spending.delta,
        is_charged=is_charged,
        is_made=is_made,
        is_withheld=is_withheld,
        late_at="" if late_s is None else utc_text(late_s),
    )


def _is_sum(plan: StudyPlan) -> bool:
    return plan.monitoring is not None and plan.monitoring.mode == "sum"


def _size(plan: StudyPlan, cells: int) -> int:
    if _is_sum(plan):  # the second share has the check tag as one more element
        return content_bytes(SEED_BYTES) + content_bytes(ELEMENT_BYTES * (cells + 1))
    return content_bytes(_CELL_BYTES * cells)


def _patients_noise(tensors: Sequence[ReportTensor]) -> float:
    weights = sum(1 / (tensor.cells * tensor.noise_multiplier**2) for tensor in tensors)
    return math.sqrt(1 / weights) if weights else 0.0
