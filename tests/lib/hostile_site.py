"""A site that lies: a real socket, the site's real keys, and one lie for each round."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.ids import ReleaseId
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import Parameters, encode_parameters
from common.protocol.codec import decode_request, encode_reply
from common.protocol.enrolment import read_enrolment
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    EvaluationCounts,
    LedgerStatement,
    ReleasedTask,
    TaskKind,
    TaskRequest,
)
from common.study.columns import parameter_shapes
from common.study.plan import StudyPlan
from site_client.config import SitePaths
from tests.lib.raw_agent import RawAgent

MALFORMED_LIE = "a reply that does not parse"
MALFORMED = b"MALFORMED"
HOSTILE_COURIER = f"""
import sys
from flwr.app.message import ConfigRecord
from flwr.supercore.inflatable.inflatable_object import add_header_to_object_body
from site_client.courier.run import main

honest = ConfigRecord.deflate

def deflate(record):
    if {MALFORMED!r} in record.values():
        # The SuperLink checks the head of what is uploaded, and nothing below it.
        return add_header_to_object_body(b"\\xff\\xff\\xff not protobuf", record)
    return honest(record)

ConfigRecord.deflate = deflate
sys.exit(main())
"""
"""A courier of the attacker's own: it uploads what no courier of ours could make."""


@dataclass
class HostileSite:
    """The agent of one site, replaced by an attacker who has its keys.

    Args:
        paths: of the site whose keys he has.
        plan: of the study.
        lies: round number to what is done to an otherwise honest reply.
        other_key: another enrolled site's signing key, which he should not be able to use.
    """

    paths: SitePaths
    plan: StudyPlan
    lies: dict[int, str]
    other_key: SigningKey
    earlier: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        enrolment = read_enrolment(self.paths.enrolment)
        self.coordinator = VerifyKey.from_text(enrolment.coordinator_verify_key)
        self.sealing = SealingKey.from_text(enrolment.coordinator_sealing_key)
        self.signing = SigningKey.read(self.paths.signing_key)
        self.opening = OpeningKey.read(self.paths.opening_key)

    def serve(self) -> RawAgent:
        """Start to answer on the site's socket."""
        return RawAgent(self.paths.socket, self.answer)

    def answer(self, envelope: bytes) -> bytes:
        """Return this round's lie."""
        header, plaintext = open_envelope(
            envelope,
            verify_key=self.coordinator,
            opening_key=self.opening,
            direction=Direction.REQUEST,
        )
        request = decode_request(plaintext)
        lie = self.lies.get(request.round_number, "")
        if lie == MALFORMED_LIE:
            return MALFORMED
        if lie == "replay":
            return self.earlier[0]
        reply = self._reply(request, lie)
        key = self.other_key if lie == "another site's signature" else self.signing
        sealed = seal_envelope(
            self._header(header, key, lie),
            encode_reply(reply),
            signing_key=key,
            recipient=self.sealing,
        )
        self.earlier.append(sealed)
        return sealed

    def _reply(self, request: TaskRequest, lie: str) -> ReleasedTask:
        update: Parameters = {
            name: np.full(shape, 0.01, dtype=np.float32)
            for name, shape in parameter_shapes(self.plan).items()
        }
        name = next(iter(update))
        if lie == "NaN":
            update[name][:] = np.nan
        if lie == "wrong shape":
            update[name] = np.zeros((2, 2), dtype=np.float32)
        if lie == "huge norm":
            update[name][:] = 1e6
        planned = plan_mechanisms(self.plan)
        mechanisms: list[Any] = []
        if request.kind is TaskKind.TRAIN:
            mechanisms.append(planned.train_per_round)
        evaluation = None
        if request.evaluate:
            bins = self.plan.evaluation.score_bins
            mechanisms.append(planned.evaluation_per_release)
            evaluation = EvaluationCounts(
                request.base_version,
                (tuple([5] * bins), tuple([5] * bins)),
                planned.evaluation_per_release.noise_multiplier,
            )
        if lie == "less noise":
            mechanisms[0] = replace(mechanisms[0], noise_multiplier=0.5)
        return ReleasedTask(
            plan_digest=request.plan_digest,
            round_number=request.round_number - (1 if lie == "a stale round" else 0),
            kind=request.kind,
            base_version=request.base_version,
            release_id=ReleaseId(f"{request.round_number:064x}"),
            declared_cohort_size=10**9 if lie == "a billion patients" else 200,
            update=encode_parameters(update) if request.kind is TaskKind.TRAIN else b"",
            evaluation=evaluation,
            mechanisms=tuple(mechanisms),
            statement=LedgerStatement(1.0, 1.0, 1e-4, request.base_version),
        )

    def _header(self, header: EnvelopeHeader, key: SigningKey, lie: str) -> EnvelopeHeader:
        now_s = int(time.time())
        return replace(
            header,
            direction=Direction.REPLY,
            issued_at_s=now_s,
            expires_at_s=now_s + 600,
            sender_fingerprint=key.fingerprint,
            recipient_fingerprint=self.sealing.fingerprint,
        )
