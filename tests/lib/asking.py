"""Requests to a real agent over its socket, honest ones and others."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path

from common.crypto.keys import OpeningKey, SealingKey, SigningKey
from common.ids import parse_request_id, parse_site_id, parse_study_id
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.codec import decode_reply, encode_request
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    TaskKind,
    TaskReply,
    TaskRequest,
)
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from common.study.scaling import initial_model
from server.config import CoordinatorPaths
from simulations.deployment import Deployment
from site_client.config import SitePaths
from site_client.courier.agent_client import AgentClient


class Asker:
    """Whoever holds a coordinator's keys asks one site's agent.

    Args:
        deployment: holds the real keys.
        site_id: whom to ask.
    """

    def __init__(self, deployment: Deployment, site_id: str) -> None:
        coordinator = CoordinatorPaths(deployment.coordinator_home)
        self.site = SitePaths(deployment.site_home(site_id))
        self.site_id = site_id
        self.signing = SigningKey.read(coordinator.signing_key)
        self.opening = OpeningKey.read(coordinator.opening_key)
        # The public halves are all that a coordinator has of a site.
        self.site_verify = SigningKey.read(self.site.signing_key).verify_key
        self.site_sealing = OpeningKey.read(self.site.opening_key).sealing_key

    def request(self, plan: StudyPlan, round_number: int) -> TaskRequest:
        """Return an honest request for the first model."""
        parameters = encode_parameters(initial_model(plan))
        rounds = plan.training.rounds
        return TaskRequest(
            plan_digest=plan_digest(plan),
            round_number=round_number,
            kind=TaskKind.TRAIN if round_number <= rounds else TaskKind.EVALUATE,
            evaluate=round_number in plan_mechanisms(plan).evaluation_rounds,
            base_version=parameters_digest(parameters),
            parameters=parameters,
        )

    def header(self, plan: StudyPlan, round_number: int) -> EnvelopeHeader:
        """Return an honest header."""
        now_s = int(time.time())
        return EnvelopeHeader(
            direction=Direction.REQUEST,
            study_id=parse_study_id(plan.study.id),
            site_id=parse_site_id(self.site_id),
            round_number=round_number,
            request_id=parse_request_id(secrets.token_hex(16)),
            issued_at_s=now_s,
            expires_at_s=now_s + 600,
            sender_fingerprint=self.signing.fingerprint,
            recipient_fingerprint=self.site_sealing.fingerprint,
        )

    def seal(
        self,
        request: TaskRequest,
        header: EnvelopeHeader,
        *,
        signing: SigningKey | None = None,
        sealing: SealingKey | None = None,
    ) -> bytes:
        """Return the envelope, signed and sealed with these keys or the honest ones."""
        signing = signing or self.signing
        sealing = sealing or self.site_sealing
        fitted = replace(
            header,
            sender_fingerprint=signing.fingerprint,
            recipient_fingerprint=sealing.fingerprint,
        )
        return seal_envelope(
            fitted, encode_request(request), signing_key=signing, recipient=sealing
        )

    def ask(self, envelope: bytes) -> TaskReply:
        """Send an envelope to the agent and return its opened reply."""
        return self.open(self.ask_raw(envelope))

    def ask_raw(self, envelope: bytes) -> bytes:
        """Send an envelope to the agent and return the reply's bytes."""
        client = AgentClient(Path(self.site.socket))
        try:
            return client.carry(envelope)
        finally:
            client.close()

    def open(self, reply: bytes) -> TaskReply:
        """Open a reply as the coordinator."""
        _, payload = open_envelope(
            reply,
            verify_key=self.site_verify,
            opening_key=self.opening,
            direction=Direction.REPLY,
        )
        return decode_reply(payload)
