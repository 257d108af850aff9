"""The numbered checks a request passes before any patient's row is read (R1 to R13, R19, R20).

R1 to R5 are the envelope's: shape, signature, address, age, message. The others compare the request
with what this site approved and limits. Each is a pure function that raises `RequestRefused` with
its number from `common.protocol.refusals`; `SiteTasks` runs them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Never

import numpy as np

from common import limits
from common.crypto.keys import OpeningKey, VerifyKey
from common.errors import ProtocolError, RequestRefused, SealError, SignatureError
from common.ids import ReleaseId, SiteId
from common.privacy.ledger_entry import LedgerEntry, ReservedEntry
from common.protocol.arrays import (
    Parameters,
    decode_parameters,
    is_finite,
    parameters_digest,
)
from common.protocol.codec import decode_request
from common.protocol.counts import count_question_digest, decode_candidates
from common.protocol.envelope import check_fresh, open_envelope
from common.protocol.messages import Direction, EnvelopeHeader, TaskKind, TaskRequest
from common.protocol.refusals import REFUSALS
from common.study.contingency import JOINT_ROUND, ContingencyTable, cell_count, count_tables
from common.study.plan import MeanVarianceScaling, StudyPlan
from common.study.scaling import Scaling, is_in_bounds, model_shapes
from site_client.approvals import Approval
from site_client.release.site_limits import SiteLimits


def open_request(
    envelope: bytes,
    header: EnvelopeHeader,
    *,
    site_id: SiteId,
    coordinator: VerifyKey,
    opening_key: OpeningKey,
    now_s: int,
) -> TaskRequest:
    """R1 to R5: open an envelope from the coordinator this site enrolled with."""
    if header.sender_fingerprint != coordinator.fingerprint:
        refuse("R2")
    if header.site_id != site_id or header.recipient_fingerprint != opening_key.fingerprint:
        refuse("R3")
    try:
        _, plaintext = open_envelope(
            envelope,
            verify_key=coordinator,
            opening_key=opening_key,
            direction=Direction.REQUEST,
        )
    except SignatureError:
        refuse("R2")
    except SealError:
        refuse("R3")
    except ProtocolError:
        refuse("R1")
    try:
        check_fresh(header, now_s)
    except ProtocolError:
        refuse("R4")
    try:
        request = decode_request(plaintext)
    except ProtocolError:
        refuse("R5")
    if request.round_number != header.round_number:
        refuse("R5")
    return request


def check_approval(approval: Approval | None, header: EnvelopeHeader, *, now_s: int) -> Approval:
    """R6 and R7: this exact plan is approved, for this study, and the approval has not ended."""
    if approval is None or approval.study_id != header.study_id:
        refuse("R6")
    if approval.is_withdrawn or now_s > approval.until_s:
        refuse("R7")
    return approval


def check_round(request: TaskRequest, plan: StudyPlan, *, evaluates: bool) -> None:
    """R8: the round, its kind and its evaluation are what the plan allows."""
    if plan.selection is not None:
        is_count = request.kind is TaskKind.COUNT and request.round_number <= JOINT_ROUND
        if not is_count or request.evaluate:
            refuse("R8")
        return
    rounds = plan.training.rounds
    is_training = request.kind is TaskKind.TRAIN and 1 <= request.round_number <= rounds
    is_final = request.kind is TaskKind.EVALUATE and request.round_number == rounds + 1
    is_scaling = (
        request.kind is TaskKind.SCALE
        and request.round_number == 0
        and isinstance(plan.scaling, MeanVarianceScaling)
    )
    if not (is_training or is_final or is_scaling) or request.evaluate != evaluates:
        refuse("R8")


def check_stale(
    entries: Iterable[LedgerEntry],
    header: EnvelopeHeader,
    *,
    release_id: ReleaseId,
    is_cached: bool,
) -> None:
    """R9: the round was not answered for another model, and no later round was answered.

    The bytes of a release that is still kept may be asked for again.
    """
    if is_cached:
        return
    for entry in entries:
        if not isinstance(entry, ReservedEntry) or entry.study_id != header.study_id:
            continue
        if entry.round_number > header.round_number:
            refuse("R9")
        if entry.round_number == header.round_number and entry.release_id != release_id:
            refuse("R9")


def check_model(request: TaskRequest, plan: StudyPlan) -> Parameters:
    """R10: the model fits the plan: names, shapes, size, digest, every number finite and bounded.

    A huge number could be chosen so that only the patients with certain features overflow. Before
    there is a model (scale) there is nothing but an empty body, so that there is one such request.
    """
    if parameters_digest(request.parameters) != request.base_version:
        refuse("R10")
    if request.kind is TaskKind.SCALE:
        if request.parameters:
            refuse("R10")
        return {}
    try:
        parameters = decode_parameters(
            request.parameters,
            expected=model_shapes(plan),
            bytes_max=limits.PARAMETERS_BYTES_MAX,
        )
    except ProtocolError:
        refuse("R10")
    bound = limits.PARAMETER_MAGNITUDE_MAX
    if not is_finite(parameters) or any(np.abs(item).max() > bound for item in parameters.values()):
        refuse("R10")
    return parameters


def check_scaling(
    scaling: Scaling | None, plan: StudyPlan, *, is_same: Callable[[Scaling], bool]
) -> None:
    """R19: the model's scaling is within its bounds, and the one that this study began with.

    Args:
        scaling: that came with the model; R10 has asked whether the plan has one.
        is_same: whether it is the pinned one; pins the first.
    """
    if scaling is not None and not (is_in_bounds(scaling, plan) and is_same(scaling)):
        refuse("R19")


def check_candidates(request: TaskRequest, plan: StudyPlan) -> tuple[ContingencyTable, ...]:
    """R20: round 1 asks for every candidate alone, round 2 for the pairs of the plan's number.

    Returns the tables to count.
    """
    if count_question_digest(request.parameters) != request.base_version or plan.selection is None:
        refuse("R20")
    try:
        candidates = decode_candidates(request.parameters)
    except ProtocolError:
        refuse("R20")
    is_joint = request.round_number == JOINT_ROUND
    if len(candidates) != (plan.selection.joint_candidates if is_joint else 0):
        refuse("R20")
    if candidates and candidates[-1] >= len(plan.features):
        refuse("R20")
    tables = count_tables(plan, candidates)
    if cell_count(tables) > limits.COUNTED_CELLS_MAX:
        refuse("R20")
    return tables


def check_study_limit(plan: StudyPlan, site_limits: SiteLimits) -> None:
    """R11: the plan asks for no more epsilon than the site allows one study."""
    if plan.privacy.epsilon > site_limits.epsilon_per_study:
        refuse("R11")


def check_cohort(patients: int, *, cohort_size_min: int) -> None:
    """R13: the site's cohort is at least the site's minimum."""
    if patients < cohort_size_min:
        refuse("R13")


def refuse(number: str) -> Never:
    """Raise the numbered refusal; its sentence comes from the table."""
    raise RequestRefused(
        REFUSALS[number],
        expected="a request that this site approved",
        arrived="another",
        todo="see the number in docs/error-codes.md",
        number=number,
    ) from None
