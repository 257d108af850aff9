"""`preview`: exactly what would leave in one round, made by the real code, nothing charged or sent.

The real engine trains on the site's data against an in-memory ledger; the noise is real and thrown
away with the rest. So the sizes are true, and no number that is shown comes from a patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from common.clock import Clock
from common.crypto.keys import OpeningKey, SigningKey
from common.ids import SiteId, parse_request_id, parse_study_id
from common.privacy.calibration import plan_mechanisms
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.codec import decode_reply, encode_request
from common.protocol.counts import count_question_digest, encode_candidates
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskReply,
    TaskRequest,
)
from common.protocol.refusals import REFUSALS
from common.study.columns import parameter_shapes
from common.study.contingency import JOINT_ROUND, SINGLE_ROUND
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from common.study.scaling import initial_model, numeric_columns
from common.study.selection_words import words_of_count
from site_client.approvals import Approvals
from site_client.config import SiteConfig
from site_client.features.site_rows import read_rows
from site_client.open_site import OpenSite
from site_client.release.release_log import ReleaseLog
from site_client.scaling_pin import ScalingPin
from site_client.site_database import SiteDatabase
from site_client.tasks import SiteRecords, SiteTasks
from site_client.training.engine import TrainingEngine


@dataclass(frozen=True)
class LeavingField:
    """One thing in a reply.

    Args:
        name: of the field.
        what: in plain words.
        size_bytes: in the reply.
    """

    name: str
    what: str
    size_bytes: int


_PUBLIC_FIELDS: Final = (
    LeavingField("declared_cohort_size", "the public number in site.toml", 4),
    LeavingField("mechanisms", "how much noise was added, as the plan fixes it", 200),
    LeavingField("statement", "epsilon spent and left, and the ledger's head", 200),
    LeavingField("names", "study, plan digest, round, release id", 300),
)


@dataclass(frozen=True)
class Preview:
    """One round's reply.

    Args:
        fields: what is in it.
        envelope_bytes: its size, sealed and signed.
        rounds: of the plan: of training, or the two counts of a plan that selects.
        evaluation_rounds: whose replies carry an evaluation as well.
        when: what leaves in which round, in words.
        scaling: what leaves once before round 1, in a plan that scales from sites' sums.
    """

    fields: tuple[LeavingField, ...]
    envelope_bytes: int
    rounds: int
    evaluation_rounds: tuple[int, ...]
    when: str
    scaling: LeavingField | None = None


def preview_round(
    plan: StudyPlan,
    *,
    config: SiteConfig,
    folder: Path,
    site: OpenSite,
    engine: TrainingEngine,
    clock: Clock,
    scratch: Path,
) -> Preview:
    """Return what one round's reply would hold.

    Args:
        scratch: an empty folder for a throw-away log; the caller deletes it.

    Raises:
        DataSourceError: when the data do not fit the plan.
    """
    planned = plan_mechanisms(plan)
    coordinator_signing, coordinator_opening = SigningKey.generate(), OpeningKey.generate()
    keys = replace(
        site.keys,
        coordinator_verify=coordinator_signing.verify_key,
        coordinator_sealing=coordinator_opening.sealing_key,
    )
    database = SiteDatabase(scratch / "preview.db")
    approvals = Approvals(database, clock, keys.signing.verify_key)
    approvals.approve(
        plan, person="preview", until_s=clock.now_s() + 3600, signing_key=keys.signing
    )
    records = SiteRecords(
        ledger=Ledger(MemoryLedgerStore(), clock),
        log=ReleaseLog(database, clock),
        approvals=approvals,
        scaling_pin=ScalingPin(database),
    )
    tasks = SiteTasks(config, folder=folder, keys=keys, records=records, clock=clock, engine=engine)
    last = plan.training.rounds if plan.selection is None else JOINT_ROUND
    number = _shown_round(plan, planned.evaluation_rounds)
    rounds = (number,) if planned.scaling is None else (0, number)
    envelopes = [
        tasks.handle(_request(plan, item, config, coordinator_signing, site, clock)).envelope
        for item in rounds
    ]
    database.close()
    replies = [
        decode_reply(
            open_envelope(
                envelope,
                verify_key=keys.signing.verify_key,
                opening_key=coordinator_opening,
                direction=Direction.REPLY,
            )[1]
        )
        for envelope in envelopes
    ]
    reply = replies[-1]
    if isinstance(reply, RefusedTask) and reply.number in {"R13", "R14"}:
        # Says here what the number means.
        read_rows(plan, config.source, folder=folder, scratch=scratch)
    return Preview(
        fields=_fields(reply, plan) if isinstance(reply, ReleasedTask) else _refused(reply.number),
        scaling=_scaling_field(replies[0], plan) if planned.scaling is not None else None,
        envelope_bytes=len(envelopes[-1]),
        rounds=last,
        evaluation_rounds=planned.evaluation_rounds,
        when=_when(plan, planned.evaluation_rounds),
    )


def _shown_round(plan: StudyPlan, evaluation_rounds: tuple[int, ...]) -> int:
    if plan.selection is not None:
        return SINGLE_ROUND  # which pairs are counted depends on the first count
    rounds = plan.training.rounds
    return next((item for item in evaluation_rounds if item <= rounds), rounds)


def _request(
    plan: StudyPlan,
    number: int,
    config: SiteConfig,
    key: SigningKey,
    site: OpenSite,
    clock: Clock,
) -> bytes:
    task = _count_task(plan, number) if plan.selection is not None else _task(plan, number)
    header = EnvelopeHeader(
        direction=Direction.REQUEST,
        study_id=parse_study_id(plan.study.id),
        site_id=SiteId(config.site.id),
        round_number=number,
        request_id=parse_request_id("0" * 32),
        issued_at_s=clock.now_s(),
        expires_at_s=clock.now_s() + 3600,
        sender_fingerprint=key.fingerprint,
        recipient_fingerprint=site.keys.opening.fingerprint,
    )
    return seal_envelope(
        header,
        encode_request(task),
        signing_key=key,
        recipient=site.keys.opening.sealing_key,
    )


def _task(plan: StudyPlan, number: int) -> TaskRequest:
    is_scaling = number == 0
    parameters = b"" if is_scaling else encode_parameters(initial_model(plan))
    kind = TaskKind.TRAIN if number <= plan.training.rounds else TaskKind.EVALUATE
    return TaskRequest(
        plan_digest=plan_digest(plan),
        round_number=number,
        kind=TaskKind.SCALE if is_scaling else kind,
        evaluate=number in plan_mechanisms(plan).evaluation_rounds,
        base_version=parameters_digest(parameters),
        parameters=parameters,
    )


def _count_task(plan: StudyPlan, number: int) -> TaskRequest:
    question = encode_candidates(())
    return TaskRequest(
        plan_digest=plan_digest(plan),
        round_number=number,
        kind=TaskKind.COUNT,
        evaluate=False,
        base_version=count_question_digest(question),
        parameters=question,
    )


def _when(plan: StudyPlan, evaluation_rounds: tuple[int, ...]) -> str:
    if plan.selection is not None:
        return (
            "The counts leave in round 1. In round 2 leave "
            f"{words_of_count(plan, JOINT_ROUND)}. Nothing is trained, and held-out patients are "
            "not counted."
        )
    rounds = plan.training.rounds
    return (
        f"The update leaves in rounds 1 to {rounds}, the evaluation in round(s) "
        f"{', '.join(map(str, evaluation_rounds))} ({rounds + 1}: after the last)."
    )


def _fields(reply: ReleasedTask, plan: StudyPlan) -> tuple[LeavingField, ...]:
    if plan.selection is not None:
        words = words_of_count(plan, reply.round_number)
        return (LeavingField("counts", words, len(reply.update)), *_PUBLIC_FIELDS)
    shapes = parameter_shapes(plan)
    numbers = sum(_product(shape) for shape in shapes.values())
    bins = plan.evaluation.score_bins
    return (
        LeavingField(
            "update",
            f"{numbers} numbers in {len(shapes)} arrays: the noised change of the model",
            len(reply.update),
        ),
        LeavingField(
            "evaluation",
            f"{2 * bins} noised counts by outcome and score bin",
            2 * bins * 4,
        ),
        *_PUBLIC_FIELDS,
    )


def _scaling_field(reply: TaskReply, plan: StudyPlan) -> LeavingField:
    if isinstance(reply, RefusedTask):
        return _refused(reply.number)[0]
    count = len(numeric_columns(plan))
    return LeavingField(
        "scaling, once before round 1",
        f"{3 * count} noised sums over the patients who train: for each of the {count} numeric "
        "features its values, their squares, and how many have one",
        len(reply.update),
    )


def _refused(number: str) -> tuple[LeavingField, ...]:
    what = f"only the number {number}: {REFUSALS[number]}"
    return (LeavingField("refusal", what, len(number)),)


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
