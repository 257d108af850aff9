"""A plan that selects, and sites whose patients have a few planted candidates among many."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.ids import Digest, ReleaseId, parse_request_id, parse_site_id, parse_study_id
from common.privacy.calibration import plan_mechanisms
from common.protocol.codec import decode_reply, encode_request
from common.protocol.counts import (
    count_question_digest,
    decode_candidates,
    encode_candidates,
    encode_counts,
)
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskRequest,
)
from common.study.columns import feature_columns
from common.study.contingency import count_tables
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from simulations.randomness import reproducible
from simulations.run_keys import RunKeys
from simulations.site_turn import prepare_sites
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from site_client.training.counts import count_patients
from site_client.training.randomness import Randomness
from tests.lib.plans import EXAMPLES, make_plan

PLANTED = ("code_0", "code_1", "code_2", "code_3")
COPY = "code_4"
"""Nearly the same as `code_0`: it tells much alone, and nothing beside it."""
RARE = "code_5"
SITES = ("east", "north", "south", "west")


def code(number: int) -> dict[str, Any]:
    """Return one candidate: whether any event of a code is in the window."""
    return {
        "kind": "numeric",
        "name": f"code_{number}",
        "description": f"Candidate {number}",
        "codes": [f"LOCAL/{number}"],
        "unit": "1",
        "plausible_range": [0, 1],
        "clip": [0, 1],
        "aggregate": "any",
        "missing": "none_allowed",
    }


def selecting_plan(*, codes: int = 20, **changes: Any) -> StudyPlan:
    """Return a plan that selects among `codes` codes and a sex, which is a fairness group."""
    selection = {"keep": 6, "present_share_min": 0.02, "joint_candidates": 8}
    sex = {
        "kind": "categorical",
        "name": "sex",
        "description": "Sex",
        "codes": ["LOINC/46098-0"],
        "levels": ["female", "male"],
    }
    return make_plan(
        **{
            "features": [*(code(number) for number in range(codes)), sex],
            "monitoring": ...,
            "privacy__epsilon": 1.0,
            "privacy__delta": 1e-5,
            "selection": selection,
        }
        | changes
    )


def planted_patients(plan: StudyPlan, count: int, *, seed: int) -> FeatureMatrix:
    """Return patients whose outcome depends on the planted codes alone."""
    rng = np.random.default_rng(seed)
    codes = len(plan.features) - 1
    has = rng.random((count, codes)) < 0.35
    has[:, 4] = np.where(rng.random(count) < 0.9, has[:, 0], has[:, 4])
    has[:, 5] = rng.random(count) < 0.003
    logit = has[:, :4] @ np.array([1.9, 1.6, 1.5, 1.4]) - 2.6
    y = rng.random(count) < 1 / (1 + np.exp(-logit))
    female = rng.random(count) < 0.5
    is_missing = rng.random(count) < 0.05
    sex = np.stack([female & ~is_missing, ~female & ~is_missing, is_missing], axis=1)
    x = np.concatenate([2.0 * has - 1, sex], axis=1).astype(np.float32)
    return FeatureMatrix(
        feature_columns(plan), x, y.astype(np.float32), rng.integers(0, 10**6, count)
    )


def planted_sites(plan: StudyPlan, *, patients: int = 5_000, seed: int = 0) -> list[VirtualSite]:
    """Return four sites with so many patients in all."""
    each = patients // len(SITES)
    return [
        VirtualSite(name, each, planted_patients(plan, each, seed=100 * seed + place))
        for place, name in enumerate(SITES)
    ]


def honest_count(plan: StudyPlan, request: TaskRequest, *, size: int, place: int) -> ReleasedTask:
    """Return a site's honest reply to a count, the same for the same question.

    Args:
        size: patients, as declared.
        place: of the site, from which its patients are made.
    """
    planned = plan_mechanisms(plan).selection
    assert planned is not None
    mechanism = planned.of_round(request.round_number)
    seed = hashlib.sha256(f"{place} {request.base_version}".encode()).digest()
    counts = count_patients(
        planted_patients(plan, size, seed=place),
        count_tables(plan, decode_candidates(request.parameters)),
        plan=plan,
        mechanism=mechanism,
        randomness=Randomness.reproducible(int.from_bytes(seed, "big")),
    )
    return ReleasedTask(
        plan_digest=request.plan_digest,
        round_number=request.round_number,
        kind=request.kind,
        base_version=request.base_version,
        release_id=ReleaseId(seed.hex()),
        declared_cohort_size=size,
        update=encode_counts(counts),
        evaluation=None,
        mechanisms=(mechanism,),
        statement=LedgerStatement(
            epsilon_spent=0.5 * request.round_number,
            epsilon_remaining=2.0,
            delta=plan.privacy.delta,
            ledger_head=Digest(seed.hex()),
        ),
    )


class AskedSite:
    """One site of a simulation, and whoever holds the coordinator's keys to ask it with.

    Args:
        folder: for its release log.
        plan: approved there.
        patients: of the site.
    """

    def __init__(self, folder: Path, plan: StudyPlan, patients: FeatureMatrix) -> None:
        self.plan = plan
        sites = [VirtualSite("east", len(patients.y), patients)]
        self.sites = prepare_sites(sites, plan, folder=folder, randomness=reproducible(1))
        self.site_id = parse_site_id("east")
        keys = RunKeys.of_folder(folder)
        self.site_signing, self.site_opening = keys.site(self.site_id)
        self.signing, self.opening = keys.coordinator.signing, keys.coordinator.opening

    def count(
        self, round_number: int, candidates: Sequence[int] = (), **changes: Any
    ) -> ReleasedTask | RefusedTask:
        """Return the reply to a count, or to one with other fields."""
        question = encode_candidates(candidates)
        fields: dict[str, Any] = {
            "plan_digest": plan_digest(self.plan),
            "round_number": round_number,
            "kind": TaskKind.COUNT,
            "evaluate": False,
            "base_version": count_question_digest(question),
            "parameters": question,
        }
        now_s = int(time.time())
        header = EnvelopeHeader(
            direction=Direction.REQUEST,
            study_id=parse_study_id(self.plan.study.id),
            site_id=self.site_id,
            round_number=round_number,
            request_id=parse_request_id(secrets.token_hex(16)),
            issued_at_s=now_s,
            expires_at_s=now_s + 600,
            sender_fingerprint=self.signing.fingerprint,
            recipient_fingerprint=self.site_opening.fingerprint,
        )
        envelope = seal_envelope(
            header,
            encode_request(TaskRequest(**{**fields, **changes})),
            signing_key=self.signing,
            recipient=self.site_opening.sealing_key,
        )
        _, payload = open_envelope(
            self.sites.answer(self.site_id, envelope),
            verify_key=self.site_signing.verify_key,
            opening_key=self.opening,
            direction=Direction.REPLY,
        )
        return decode_reply(payload)


def selecting_heart_plan(folder: Path, *, study: str = "heart-choice") -> Path:
    """Write the heart plan as one that selects among its features."""
    text = (EXAMPLES / "heart-disease.toml").read_text(encoding="utf-8")
    text = text.replace('id = "heart-disease"', f'id = "{study}"')
    path = folder / f"{study}.toml"
    choice = "\n[selection]\nkeep = 7\npresent_share_min = 0.05\njoint_candidates = 5\n"
    path.write_text(text + choice, encoding="utf-8")
    return path
