"""Every message between coordinator and site, as frozen dataclasses without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from common.ids import Digest, ReleaseId, RequestId, SiteId, StudyId
from common.privacy.mechanism import MechanismRecord


class Direction(StrEnum):
    """Which way an envelope travels; bound into its signature and its seal."""

    REQUEST = "request"
    REPLY = "reply"


class TaskKind(StrEnum):
    """What the coordinator asks of a site."""

    TRAIN = "train"  # train one round; the reply may also carry the received model's evaluation
    SCALE = "scale"  # noised sums of the numeric features, once, before round 1
    EVALUATE = "evaluate"  # score the received model only, after the last round
    COUNT = "count"  # count the training patients in a selection's tables; nothing is trained


@dataclass(frozen=True)
class EnvelopeHeader:
    """What relays may read of an envelope.

    Args:
        direction: request or reply.
        study_id: the study.
        site_id: the site asked, or the site that replies.
        round_number: 1 to the plan's rounds; 0 to scale; rounds + 1 for the final evaluation.
        request_id: chosen by the coordinator, repeated in the reply.
        issued_at_s: seconds since 1970, sender's clock.
        expires_at_s: after it the receiver refuses.
        sender_fingerprint: of the sender's signing key.
        recipient_fingerprint: of the receiver's sealing key.
    """

    direction: Direction
    study_id: StudyId
    site_id: SiteId
    round_number: int
    request_id: RequestId
    issued_at_s: int
    expires_at_s: int
    sender_fingerprint: str
    recipient_fingerprint: str


@dataclass(frozen=True)
class TaskRequest:
    """What a site is asked to do in one round.

    Args:
        plan_digest: the exact plan the site must have approved.
        round_number: 1 to the plan's rounds; 0 to scale; rounds + 1 for the final evaluation.
        kind: train, scale, evaluate or count.
        evaluate: whether to evaluate the received model as well (always for EVALUATE, never for
            COUNT).
        base_version: `parameters_digest` of `parameters`; for COUNT `count_question_digest`.
        parameters: the model, as safetensors bytes (`common.protocol.arrays`); empty for SCALE; for
            COUNT the candidates whose pairs are asked for (`common.protocol.counts`).
    """

    plan_digest: Digest
    round_number: int
    kind: TaskKind
    evaluate: bool
    base_version: Digest
    parameters: bytes


@dataclass(frozen=True)
class EvaluationCounts:
    """Noisy, rounded counts of held-out patients by label and score bin; may be negative.

    Args:
        model_version: the parameters that were scored.
        counts: integers [2, score_bins], row 0 for label 0.
        noise_multiplier: standard deviation of the noise per cell (L2 sensitivity 1).
    """

    model_version: Digest
    counts: tuple[tuple[int, ...], tuple[int, ...]]
    noise_multiplier: float


@dataclass(frozen=True)
class LedgerStatement:
    """What the site's ledger says after this release, for the patient who spent most.

    Args:
        epsilon_spent: by this study, at `delta`.
        epsilon_remaining: the lesser of what the plan and the site's limits leave to this study.
        delta: at which both are stated.
        ledger_head: digest of the ledger's newest entry.
    """

    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    ledger_head: Digest


@dataclass(frozen=True)
class ReleasedTask:
    """A reply that carries a release.

    Args:
        plan_digest, round_number, kind, base_version: as in the request it answers.
        release_id: the gate's name for it, the same on every retry.
        declared_cohort_size: public number of patients declared by the site, used as weight.
        update: trained minus received parameters, safetensors bytes; the noised sums for SCALE; the
            noised counts for COUNT (`common.protocol.counts`); empty for EVALUATE.
        evaluation: present exactly when the request asked for it.
        mechanisms: every noisy step in this release.
        statement: the ledger after this release.
    """

    plan_digest: Digest
    round_number: int
    kind: TaskKind
    base_version: Digest
    release_id: ReleaseId
    declared_cohort_size: int
    update: bytes
    evaluation: EvaluationCounts | None
    mechanisms: tuple[MechanismRecord, ...]
    statement: LedgerStatement


@dataclass(frozen=True)
class RefusedTask:
    """A reply that says no, with a number from `common.protocol.refusals` and no free text."""

    plan_digest: Digest
    round_number: int
    number: str


TaskReply: TypeAlias = ReleasedTask | RefusedTask
