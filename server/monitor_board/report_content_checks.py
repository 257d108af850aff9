"""Whether a report's content is what its header and its plan say; `inbox` has the order."""

from __future__ import annotations

from common.crypto.keys import VerifyKey
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.monitoring.refusals import numbered, refusal
from common.protocol.monitoring.report_content import ReportContent, check_content, decode_content
from common.protocol.monitoring.report_envelope import open_report
from common.protocol.monitoring.report_header import ReportHeader
from common.study.plan import StudyPlan
from common.study.report_periods import REFERENCE, parse_period, report_due_s, report_late_s
from common.study.report_tensors import ReportKind
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import PlanOnBoard, ReportSchema


def open_content(
    header: ReportHeader,
    envelope: bytes,
    on_board: PlanOnBoard,
    *,
    keys: OpeningKeys,
    verify_key: VerifyKey,
) -> ReportContent:
    """Return what a report says; raises an error with number B5 or B6."""
    key = keys.for_report(header)
    if key is None:
        raise refusal(
            "B5",
            expected="a report sealed to a key that this board has",
            arrived=f"one sealed to {len(header.recipients)} others",
            todo="nothing, if this board joined later or its key was deleted",
        )
    _, plaintext = open_report(envelope, verify_key=verify_key, opening_key=key)
    schema = on_board.schema(ReportKind(header.kind))
    content = decode_content(plaintext, cells=schema.layout.cells)
    check_content(header, content)
    _check_privacy(content, schema, delta=on_board.plan.privacy.delta)
    return content


def check_model_and_schema(header: ReportHeader, on_board: PlanOnBoard) -> None:
    """B11: the report is of this plan's schema and of a model that was promoted."""
    expected = on_board.schema(ReportKind(header.kind)).digest
    if header.schema != expected:
        raise refusal("B11", expected=f"schema {expected[:12]}", arrived=header.schema[:12])
    if header.model_version not in on_board.models:
        raise refusal(
            "B11",
            expected="a model version that the coordinator promoted in this study",
            arrived=header.model_version[:12],
            todo="nothing, if its promotion is on its way: the report is looked at again then",
        )


def check_time(header: ReportHeader, plan: StudyPlan, received_at_s: int) -> None:
    """B10: the report's period was over when the relay received it, and it was not late."""
    if header.period == REFERENCE or plan.monitoring is None:
        return
    kind = ReportKind(header.kind)
    with numbered("B10"):
        period = parse_period(header.period, plan.monitoring.every)
    due_s, late_s = report_due_s(plan, kind, period), report_late_s(plan, kind, period)
    if not due_s <= received_at_s <= late_s:
        raise refusal(
            "B10",
            expected=f"between {due_s} and {late_s} (seconds since 1970)",
            arrived=f"{received_at_s}",
        )


def _check_privacy(content: ReportContent, schema: ReportSchema, *, delta: float) -> None:
    """B6: the noise is what the plan promises, at its delta."""
    planned, found = schema.mechanisms, content.mechanisms
    is_planned = len(found) == len(planned) and all(
        isinstance(item, DiscreteGaussianCounts)
        and item.noise_multiplier == wanted.noise_multiplier
        and item.cells_per_patient_max == wanted.cells_per_patient_max
        for item, wanted in zip(found, planned, strict=True)
    )
    if not is_planned or content.delta != delta:
        raise refusal(
            "B6",
            expected="the plan's mechanisms, with its noise and its delta",
            arrived="others",
        )
