"""The numbered checks that a site's reply passes before it may be aggregated.

(U1) the envelope opens and is signed by that site's enrolled key
(U2) the site is active, not suspended
(U3) it answers a request that is outstanding (not a replay, not a stale one)
(U4) it is about this exact plan
(U5) it is about this round and this kind of task
(U6) it was made from the model that was sent
(U7) its bytes are within the bound for this model
(U8) its arrays have the plan's names, shapes and type
(U9) every number is finite
(U10) its L2 norm is within the plan's bound
(U11) its mechanism records are the plan's: no less noise, no more steps
(U12) its release was never accepted before
(U13) its evaluation is present exactly when asked for, and well formed
(U14) its declared cohort size is at most the admitted one, and the same as in earlier rounds
(U15) its sums for scaling are those that so many patients can have, with the noise
(U16) its counts are one for each cell asked for, and none is beyond its cohort and its noise

Each is a pure function that raises `UpdateRefused` with its number; `open_reply` and then
`check_release` run them in order. A refused reply ends nothing: the round goes on with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Never

from common import limits
from common.crypto.keys import OpeningKey
from common.errors import ProtocolError, SealError, SignatureError, UpdateRefused
from common.ids import Digest, RequestId, SiteId, StudyId
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import Parameters, decode_parameters, is_finite, l2_norm
from common.protocol.codec import decode_reply
from common.protocol.counts import CELL_BYTES, decode_counts
from common.protocol.envelope import check_fresh, open_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskReply,
)
from common.study.scaling import MOMENTS, MomentBounds
from server.site_directory import Site

_HEADER_BYTES: Final = 1 << 20  # safetensors' own header, far above what names and shapes need
_BEFORE_ANY_PLAN: Final = frozenset({"R1", "R2", "R3", "R4", "R5", "R16"})
_NOISE_DEVIATIONS: Final = 12
_NORM_SLACK: Final = 1.001  # float32 rounding of an update projected onto the bound


@dataclass(frozen=True)
class Expectation:
    """What an acceptable reply of one round looks like.

    Args:
        study_id: the study.
        plan_digest: of its plan.
        round_number: 0 to rounds + 1.
        kind: train, scale, evaluate or count.
        is_evaluated: whether the reply must carry an evaluation.
        base_version: of the model, or of the question, that was sent.
        shapes: name to shape of every array of an update.
        update_norm_max: L2.
        mechanisms: exactly those of the plan for this round.
        score_bins: of an evaluation.
        cells: of a count; 0 for another kind.
    """

    study_id: StudyId
    plan_digest: Digest
    round_number: int
    kind: TaskKind
    is_evaluated: bool
    base_version: Digest
    shapes: Mapping[str, tuple[int, ...]]
    update_norm_max: float
    mechanisms: tuple[MechanismRecord, ...]
    score_bins: int
    cells: int = 0


@dataclass(frozen=True)
class SiteMemory:
    """What the coordinator remembers of a site in this study.

    Args:
        releases: ids of releases accepted before.
        cohort_size: declared with an earlier release, or None.
        cohort_size_max: the most that the site was admitted with.
    """

    releases: AbstractSet[str]
    cohort_size: int | None
    cohort_size_max: int


def open_reply(
    envelope: bytes,
    *,
    site: Site,
    opening_key: OpeningKey,
    outstanding: Mapping[RequestId, SiteId],
    expectation: Expectation,
    now_s: int,
) -> TaskReply:
    """Open a reply and run U1 to U5; raises `UpdateRefused`.

    A `RefusedTask` that passes is the site's own numbered refusal.
    """
    header, reply = check_envelope(envelope, site=site, opening_key=opening_key, now_s=now_s)
    check_active(site)
    check_outstanding(header, site=site, outstanding=outstanding, expectation=expectation)
    check_plan(reply, expectation)
    check_round(reply, expectation)
    return reply


def check_release(
    reply: ReleasedTask, *, expectation: Expectation, memory: SiteMemory
) -> Parameters:
    """Run U6 to U16 and return the update's arrays, empty for an evaluation or a count."""
    check_base(reply, expectation)
    check_size(reply, expectation)
    update = check_shapes(reply, expectation)
    check_finite(update)
    check_norm(update, expectation, reply.declared_cohort_size)
    check_mechanisms(reply, expectation)
    check_new(reply, memory)
    check_evaluation(reply, expectation)
    check_cohort_size(reply, memory)
    check_moments(update, expectation, reply.declared_cohort_size)
    check_counts(reply, expectation)
    return update


def check_envelope(
    envelope: bytes, *, site: Site, opening_key: OpeningKey, now_s: int
) -> tuple[EnvelopeHeader, TaskReply]:
    """U1: the envelope opens and is signed by that site's enrolled key."""
    try:
        header, plaintext = open_envelope(
            envelope,
            verify_key=site.verify_key,
            opening_key=opening_key,
            direction=Direction.REPLY,
        )
        check_fresh(header, now_s)
        return header, decode_reply(plaintext)
    except (ProtocolError, SignatureError, SealError) as error:
        _refuse("U1", "a reply signed by the site and sealed to us", error.refused)


def check_active(site: Site) -> None:
    """U2: the site is active, not suspended."""
    if not site.is_active:
        _refuse("U2", "an active site", "a suspended one")


def check_outstanding(
    header: EnvelopeHeader,
    *,
    site: Site,
    outstanding: Mapping[RequestId, SiteId],
    expectation: Expectation,
) -> None:
    """U3: it answers a request that is outstanding (not a replay, not a stale one)."""
    is_answer = (
        outstanding.get(header.request_id) == site.site_id
        and header.site_id == site.site_id
        and header.study_id == expectation.study_id
        and header.round_number == expectation.round_number
    )
    if not is_answer:
        _refuse("U3", "an answer to the request of this round", "an answer to another request")


def check_plan(reply: TaskReply, expectation: Expectation) -> None:
    """U4: it is about this exact plan.

    A site that refuses before it knows the plan cannot name it; U3 has bound the reply already.
    """
    if isinstance(reply, RefusedTask) and reply.number in _BEFORE_ANY_PLAN:
        return
    if reply.plan_digest != expectation.plan_digest:
        _refuse("U4", f"plan {expectation.plan_digest}", f"plan {reply.plan_digest}")


def check_round(reply: TaskReply, expectation: Expectation) -> None:
    """U5: it is about this round and this kind of task."""
    if reply.round_number != expectation.round_number:
        _refuse("U5", f"round {expectation.round_number}", f"round {reply.round_number}")
    if isinstance(reply, ReleasedTask) and reply.kind is not expectation.kind:
        _refuse("U5", f"a reply to {expectation.kind.value}", f"one to {reply.kind.value}")


def check_base(reply: ReleasedTask, expectation: Expectation) -> None:
    """U6: it was made from the model that was sent."""
    if reply.base_version != expectation.base_version:
        _refuse("U6", f"an update of {expectation.base_version}", f"one of {reply.base_version}")


def check_size(reply: ReleasedTask, expectation: Expectation) -> None:
    """U7: its bytes are within the bound for this model."""
    most = CELL_BYTES * expectation.cells
    if expectation.kind in (TaskKind.TRAIN, TaskKind.SCALE):
        most = _HEADER_BYTES + sum(4 * _product(shape) for shape in expectation.shapes.values())
    if len(reply.update) > min(most, limits.PARAMETERS_BYTES_MAX):
        _refuse("U7", f"at most {most} bytes", f"{len(reply.update)} bytes")


def check_shapes(reply: ReleasedTask, expectation: Expectation) -> Parameters:
    """U8: its arrays have the plan's names, shapes and type."""
    if expectation.kind in (TaskKind.EVALUATE, TaskKind.COUNT):
        return {}
    try:
        return decode_parameters(
            reply.update, expected=expectation.shapes, bytes_max=limits.PARAMETERS_BYTES_MAX
        )
    except ProtocolError as error:
        _refuse("U8", error.expected, error.arrived)


def check_finite(update: Parameters) -> None:
    """U9: every number is finite."""
    if not is_finite(update):
        _refuse("U9", "finite numbers", "NaN or infinity")


def check_norm(update: Parameters, expectation: Expectation, cohort_size: int) -> None:
    """U10: its L2 norm is within the plan's bound.

    That of sums for scaling is within what the declared patients can add, and the noise.
    """
    norm, most = l2_norm(update), expectation.update_norm_max
    if expectation.kind is TaskKind.SCALE:
        most = _moment_bounds(expectation, cohort_size).norm_max
    if norm > most * _NORM_SLACK:
        _refuse("U10", f"an L2 norm of at most {most:g}", f"{norm:.4g}")


def check_mechanisms(reply: ReleasedTask, expectation: Expectation) -> None:
    """U11: its mechanism records are the plan's: no less noise, no more steps."""
    if reply.mechanisms != expectation.mechanisms:
        _refuse("U11", "the mechanism records that the plan fixes", "others")


def check_new(reply: ReleasedTask, memory: SiteMemory) -> None:
    """U12: its release was never accepted before."""
    if reply.release_id in memory.releases:
        _refuse("U12", "a new release", "one that was already accepted")


def check_evaluation(reply: ReleasedTask, expectation: Expectation) -> None:
    """U13: its evaluation is present exactly when asked for, and well formed."""
    evaluation = reply.evaluation
    if (evaluation is not None) != expectation.is_evaluated:
        _refuse("U13", "an evaluation exactly when asked for", "the opposite")
    if evaluation is None:
        return
    is_fit = (
        evaluation.model_version == expectation.base_version
        and all(len(row) == expectation.score_bins for row in evaluation.counts)
        and evaluation.noise_multiplier == expectation.mechanisms[-1].noise_multiplier
    )
    if not is_fit:
        _refuse("U13", f"counts of the sent model in {expectation.score_bins} bins", "others")


def check_cohort_size(reply: ReleasedTask, memory: SiteMemory) -> None:
    """U14: its declared cohort size is at most the admitted one, and the same as in earlier rounds.

    The size is the site's weight in the mean: nobody may choose his own.
    """
    size = reply.declared_cohort_size
    if not limits.COHORT_SIZE_MIN <= size <= memory.cohort_size_max:
        expected = f"{limits.COHORT_SIZE_MIN} to {memory.cohort_size_max} patients, as admitted"
        _refuse("U14", expected, str(size))
    if memory.cohort_size is not None and size != memory.cohort_size:
        _refuse("U14", f"{memory.cohort_size} patients, as declared before", str(size))


def check_moments(update: Parameters, expectation: Expectation, cohort_size: int) -> None:
    """U15: its sums for scaling are those that so many patients can have, with the noise.

    A site is to move the common mean by no more than its patients, each in [-1, 1], could.
    """
    if expectation.kind is not TaskKind.SCALE:
        return
    if not _moment_bounds(expectation, cohort_size).are_plausible(update[MOMENTS]):
        _refuse("U15", "sums of values in [-1, 1] over at most the declared patients", "others")


def _moment_bounds(expectation: Expectation, cohort_size: int) -> MomentBounds:
    return MomentBounds(
        features=expectation.shapes[MOMENTS][1],
        patients=cohort_size,
        noise_multiplier=expectation.mechanisms[0].noise_multiplier,
    )


def check_counts(reply: ReleasedTask, expectation: Expectation) -> None:
    """U16: its counts are one for each cell asked for, and none is beyond its cohort and its noise.

    A site may have twice the patients that it declares; noise passes twelve standard deviations
    about once in 10^32 cells.
    """
    if expectation.kind is not TaskKind.COUNT:
        return
    try:
        counts = decode_counts(reply.update, cells=expectation.cells)
    except ProtocolError as error:
        _refuse("U16", error.expected, error.arrived)
    noise = _NOISE_DEVIATIONS * expectation.mechanisms[-1].noise_multiplier
    most = 2 * reply.declared_cohort_size + noise
    if len(counts) and (counts.max() > most or counts.min() < -noise):
        _refuse("U16", f"counts from {-noise:.0f} to {most:.0f}", "one beyond")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _refuse(number: str, expected: str, arrived: str) -> Never:
    raise UpdateRefused(
        "a site's reply is refused",
        expected=expected,
        arrived=arrived,
        todo="the round goes on without it; ask the site to check its software and its keys",
        number=number,
    ) from None
