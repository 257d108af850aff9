"""Messages, headers and keys that are right in every way, the same in every run."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.crypto.keys import OpeningKey, SigningKey
from common.ids import Digest, ReleaseId, RequestId, SiteId, StudyId
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    PatientPart,
)
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.counts import count_question_digest, encode_candidates, encode_counts
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    EvaluationCounts,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskRequest,
)
from common.study.scaling import MOMENTS

NOW_S = 1_790_000_000
PLAN_DIGEST = Digest("a1" * 32)
SHAPES = {"linear.weight": (1, 3), "linear.bias": (1,)}
PARAMETERS = encode_parameters(
    {
        "linear.weight": np.array([[0.25, -1.5, 3.0]], dtype=np.float32),
        "linear.bias": np.array([0.125], dtype=np.float32),
    }
)
BASE_VERSION = parameters_digest(PARAMETERS)


@dataclass(frozen=True)
class Party:
    """One side's two private keys."""

    signing: SigningKey
    opening: OpeningKey

    @classmethod
    def fixed(cls, folder: Path, seed: int) -> Party:
        """Return keys made of one repeated byte: for tests, known to everybody."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "signing.key", "cohortium-signing-key-1", bytes([seed]) * 32)
        _write(folder / "opening.key", "cohortium-opening-key-1", bytes([seed]) * 96)
        return cls(SigningKey.read(folder / "signing.key"), OpeningKey.read(folder / "opening.key"))

    @classmethod
    def fresh(cls) -> Party:
        """Return new random keys."""
        return cls(SigningKey.generate(), OpeningKey.generate())


def header(
    sender: Party, recipient: Party, *, direction: Direction = Direction.REQUEST
) -> EnvelopeHeader:
    """Return the header of a first-round envelope."""
    return EnvelopeHeader(
        direction=direction,
        study_id=StudyId("small-study"),
        site_id=SiteId("north"),
        round_number=1,
        request_id=RequestId("0f" * 16),
        issued_at_s=NOW_S,
        expires_at_s=NOW_S + 600,
        sender_fingerprint=sender.signing.fingerprint,
        recipient_fingerprint=recipient.opening.fingerprint,
    )


def request() -> TaskRequest:
    """Return a request to train the first round and evaluate the received model."""
    return TaskRequest(
        plan_digest=PLAN_DIGEST,
        round_number=1,
        kind=TaskKind.TRAIN,
        evaluate=True,
        base_version=BASE_VERSION,
        parameters=PARAMETERS,
    )


def release() -> ReleasedTask:
    """Return the reply to `request` with everything a reply can carry."""
    return ReleasedTask(
        plan_digest=PLAN_DIGEST,
        round_number=1,
        kind=TaskKind.TRAIN,
        base_version=BASE_VERSION,
        release_id=ReleaseId("c3" * 32),
        declared_cohort_size=303,
        update=PARAMETERS,
        evaluation=EvaluationCounts(
            model_version=BASE_VERSION, counts=((3, -1, 0, 7), (0, 2, 5, 9)), noise_multiplier=2.5
        ),
        mechanisms=(
            DpSgdSteps(
                noise_multiplier=1.25,
                sampling_probability=0.5,
                steps=20,
                part=PatientPart(200_000, 1_000_000),
            ),
            GaussianVector(noise_multiplier=2.5, part=PatientPart(0, 200_000)),
        ),
        statement=LedgerStatement(
            epsilon_spent=0.75,
            epsilon_remaining=2.25,
            delta=1e-5,
            ledger_head=Digest("d4" * 32),
        ),
    )


def count_request() -> TaskRequest:
    """Return a request to count the pairs among three candidates."""
    question = encode_candidates((0, 4, 7))
    return TaskRequest(
        plan_digest=PLAN_DIGEST,
        round_number=2,
        kind=TaskKind.COUNT,
        evaluate=False,
        base_version=count_question_digest(question),
        parameters=question,
    )


def count_release() -> ReleasedTask:
    """Return the reply to `count_request`: three tables of eight cells."""
    return replace(
        release(),
        round_number=2,
        kind=TaskKind.COUNT,
        base_version=count_request().base_version,
        update=encode_counts([*range(-3, 18), 70_000, 0, -1]),
        evaluation=None,
        mechanisms=(DiscreteGaussianCounts(27.5, 3, PatientPart(200_000, 1_000_000)),),
    )


def refusal() -> RefusedTask:
    """Return the reply that says the plan was never approved."""
    return RefusedTask(plan_digest=PLAN_DIGEST, round_number=1, number="R6")


def _write(path: Path, tag: str, raw: bytes) -> None:
    path.write_text(f"{tag} {base64.b64encode(raw).decode()}\n", encoding="ascii")
    path.chmod(0o600)


def scale_request() -> TaskRequest:
    """Return a request for the sums from which scaling follows."""
    return replace(
        request(),
        kind=TaskKind.SCALE,
        round_number=0,
        evaluate=False,
        base_version=parameters_digest(b""),
        parameters=b"",
    )


def scale_release() -> ReleasedTask:
    """Return a release of sums for two numeric features."""
    sums = np.array([[1.5, -2.0], [-0.25, 8.0], [40.0, 30.5]], dtype=np.float32)
    return replace(
        release(),
        kind=TaskKind.SCALE,
        round_number=0,
        base_version=parameters_digest(b""),
        update=encode_parameters({MOMENTS: sums}),
        evaluation=None,
        mechanisms=(GaussianVector(7.75),),
    )
