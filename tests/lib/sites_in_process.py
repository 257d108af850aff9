"""A site's real code in this process: real keys, real SQLite, a small table, no network."""

from __future__ import annotations

import secrets
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from common.crypto.keys import OpeningKey, SigningKey
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
from common.study.plan_file import plan_digest, read_plan
from common.study.scaling import initial_model
from simulations.heart_sites import heart_sites
from site_client.config import SiteConfig, SitePaths
from site_client.open_site import open_records
from site_client.tasks import SiteKeys, SiteTasks
from site_client.training.dp_sgd_engine import DpSgdEngine

PLAN = Path(__file__).parents[2] / "docs" / "examples" / "heart-disease.toml"


@dataclass
class InProcessSite:
    """One site, and the coordinator's keys to ask it with."""

    tasks: SiteTasks
    paths: SitePaths
    plan: StudyPlan
    coordinator: SigningKey
    coordinator_opening: OpeningKey
    keys: SiteKeys
    config: SiteConfig

    def envelope(self, header_round: int = 1, /, **changes: Any) -> bytes:
        """Return an honest request envelope for the first model, or one with other fields."""
        round_number = header_round
        parameters = b"" if round_number == 0 else encode_parameters(initial_model(self.plan))
        rounds = self.plan.training.rounds
        training_or_end = TaskKind.TRAIN if round_number <= rounds else TaskKind.EVALUATE
        fields: dict[str, Any] = {
            "plan_digest": plan_digest(self.plan),
            "round_number": round_number,
            "kind": TaskKind.SCALE if round_number == 0 else training_or_end,
            "evaluate": round_number in plan_mechanisms(self.plan).evaluation_rounds,
            "base_version": parameters_digest(parameters),
            "parameters": parameters,
        }
        request = TaskRequest(**{**fields, **changes})
        now_s = int(time.time())
        header = EnvelopeHeader(
            direction=Direction.REQUEST,
            study_id=parse_study_id(self.plan.study.id),
            site_id=parse_site_id(self.config.site.id),
            round_number=round_number,
            request_id=parse_request_id(secrets.token_hex(16)),
            issued_at_s=now_s,
            expires_at_s=now_s + 600,
            sender_fingerprint=self.coordinator.fingerprint,
            recipient_fingerprint=self.keys.opening.fingerprint,
        )
        return seal_envelope(
            header,
            encode_request(request),
            signing_key=self.coordinator,
            recipient=self.keys.opening.sealing_key,
        )

    def ask(self, envelope: bytes) -> TaskReply:
        """Return the opened reply to an envelope."""
        _, payload = open_envelope(
            self.tasks.handle(envelope).envelope,
            verify_key=self.keys.signing.verify_key,
            opening_key=self.coordinator_opening,
            direction=Direction.REPLY,
        )
        return decode_reply(payload)


def make_site(
    folder: Path,
    *,
    limits: str = "",
    engine: Any = None,
    source: str = "",
    plan: StudyPlan | None = None,
) -> InProcessSite:
    """Make the generated site northfield with the example plan approved.

    Args:
        folder: empty; becomes the site's folder.
        limits: other `[limits]` as TOML text.
        engine: another training engine.
        source: another `[source]` as TOML text.
        plan: another one.
    """
    plan = plan or read_plan(PLAN)
    site = heart_sites(folder / "data", uci=None)[0]
    config = SiteConfig.model_validate(
        tomllib.loads(
            f'[site]\nid = "{site.site_id}"\ndeclared_cohort_size = 310\n'
            f"{limits or site.limits}\n{source or site.source}"
        )
    )
    paths = SitePaths(folder)
    coordinator, coordinator_opening = SigningKey.generate(), OpeningKey.generate()
    keys = SiteKeys(
        signing=SigningKey.generate(),
        opening=OpeningKey.generate(),
        salt=b"s" * 32,
        coordinator_verify=coordinator.verify_key,
        coordinator_sealing=coordinator_opening.sealing_key,
    )
    records, _ = open_records(paths, clock=SystemClock(), key=keys.signing.verify_key)
    records.approvals.approve(
        plan, person="A Steward", until_s=int(time.time()) + 3600, signing_key=keys.signing
    )
    tasks = SiteTasks(
        config,
        folder=folder,
        keys=keys,
        records=records,
        clock=SystemClock(),
        engine=engine or DpSgdEngine(),
    )
    return InProcessSite(tasks, paths, plan, coordinator, coordinator_opening, keys, config)
