"""A small consortium that monitors: fixed keys, a roster, reports; one keyword breaks one thing."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from common.canonical import digest_bytes
from common.crypto.keys import (
    HYBRID_SUITE,
    X25519_SUITE,
    AnyOpeningKey,
    AnySealingKey,
    OpeningKey,
    SigningKey,
    X25519OpeningKey,
)
from common.errors import CohortiumError
from common.ids import BoardId, Digest, SiteId, StudyId
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.monitoring.check_key import SealedCheckKey
from common.protocol.monitoring.closing import ClosedSite, Closing
from common.protocol.monitoring.notices import (
    Action,
    Decision,
    Promotion,
    Receipt,
    decision_genesis,
)
from common.protocol.monitoring.partial_sum import PartialSum
from common.protocol.monitoring.report_content import ReportContent, encode_content
from common.protocol.monitoring.report_envelope import seal_report
from common.protocol.monitoring.report_header import ReportDraft, genesis
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterDecider,
    RosterSite,
    Standing,
    roster_genesis,
)
from common.protocol.monitoring.roster_file import sign_key_change
from common.study.report_tensors import ReportKind

STUDY: Final = StudyId("small-study")
NORTH: Final = SiteId("north")
SOUTH: Final = SiteId("south")
CONSORTIUM: Final = "Small consortium"
NOW_S: Final = 1_800_000_000
DAY_S: Final = 86_400
CELLS: Final = 40


def signing_key(seed: int) -> SigningKey:
    """Return the signing key whose private bytes are all `seed`."""
    return _from_file(SigningKey, "cohortium-signing-key-1", bytes([seed]) * 32)


def opening_key(seed: int, suite: int = HYBRID_SUITE) -> AnyOpeningKey:
    """Return the opening key of a suite whose private bytes are all `seed`."""
    if suite == X25519_SUITE:
        raw = bytes([seed]) * 32
        return _from_file(X25519OpeningKey, "cohortium-x25519-opening-key-1", raw)
    return _from_file(OpeningKey, "cohortium-opening-key-1", bytes([seed]) * 96)


def _from_file(key_type: Any, tag: str, raw: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.touch(mode=0o600)
        path.write_text(f"{tag} {base64.b64encode(raw).decode()}\n")
        return key_type.read(path)


AUTHORITY: Final = signing_key(1)
SITE_KEYS: Final = {NORTH: signing_key(2), SOUTH: signing_key(3)}
BOARD: Final = BoardId("board")
AUDITOR: Final = BoardId("auditor")
BOARD_KEYS: Final = {BOARD: signing_key(4), AUDITOR: signing_key(5)}
OPENING_KEYS: Final = {BOARD: opening_key(6), AUDITOR: opening_key(7)}
DECIDER_KEYS: Final = {"ada": signing_key(8), "ben": signing_key(9), "cleo": signing_key(10)}
COORDINATOR: Final = signing_key(11)
AGGREGATOR: Final = BoardId("aggregator")
AGGREGATOR_KEY: Final = signing_key(13)


def make_roster(
    *, suite: int = HYBRID_SUITE, opening: Sequence[AnyOpeningKey] | None = None, **changes: Any
) -> MonitoringRoster:
    """Return version 1: two sites, a board, an auditor, three deciders."""
    keys = opening or [opening_key(6, suite), opening_key(7, suite)]
    boards = [
        RosterBoard(
            board_id, BoardRole.BOARD, key.sealing_key, BOARD_KEYS[board_id].verify_key, status
        )
        for board_id, key, status in zip((BOARD, AUDITOR), keys, [Standing.ACTIVE] * 2, strict=True)
    ]
    roster = MonitoringRoster(
        version=1,
        consortium=CONSORTIUM,
        authority=AUTHORITY.verify_key,
        previous=roster_genesis(CONSORTIUM),
        not_before_s=NOW_S,
        not_after_s=NOW_S + 365 * DAY_S,
        grace_s=14 * DAY_S,
        suites=(suite,),
        sites=tuple(
            RosterSite(site_id, key.verify_key, 1, Standing.ACTIVE)
            for site_id, key in sorted(SITE_KEYS.items())
        ),
        boards=tuple(sorted(boards, key=lambda board: board.board_id)),
        deciders=tuple(
            RosterDecider(name, key.verify_key, Standing.ACTIVE)
            for name, key in sorted(DECIDER_KEYS.items())
        ),
    )
    return replace(roster, **changes)


def summing_roster() -> MonitoringRoster:
    """Return the roster with one aggregator besides."""
    roster = make_roster()
    aggregator = RosterBoard(
        AGGREGATOR,
        BoardRole.AGGREGATOR_A,
        opening_key(14).sealing_key,
        AGGREGATOR_KEY.verify_key,
        Standing.ACTIVE,
    )
    return replace(roster, boards=(aggregator, *roster.boards))


def next_roster(before: MonitoringRoster, **changes: Any) -> MonitoringRoster:
    """Return the version after another, in force a day later."""
    follows = {
        "version": before.version + 1,
        "previous": before.digest,
        "not_before_s": before.not_before_s + DAY_S,
        "not_after_s": before.not_after_s + DAY_S,
    }
    return replace(before, **{**follows, **changes})


def with_site(roster: MonitoringRoster, site_id: SiteId, **changes: Any) -> tuple[RosterSite, ...]:
    """Return a roster's sites with one of them changed."""
    return tuple(
        replace(site, **changes) if site.site_id == site_id else site for site in roster.sites
    )


def make_content(**changes: Any) -> ReportContent:
    """Return an outcome report's content of 40 counts."""
    content = ReportContent(
        kind=ReportKind.OUTCOME,
        period="2026-02",
        mechanisms=(
            DiscreteGaussianCounts(noise_multiplier=4.25, cells_per_patient_max=1),
            DiscreteGaussianCounts(noise_multiplier=6.5, cells_per_patient_max=2),
        ),
        epsilon_spent=1.5,
        epsilon_remaining=6.25,
        delta=1e-6,
        ledger_head=digest_bytes("test", b"ledger"),
        software_version="0.1.0",
        counts=np.arange(-20, CELLS - 20, dtype=np.int64) * 1001,
    )
    return replace(content, **changes)


def make_draft(roster: MonitoringRoster, **changes: Any) -> ReportDraft:
    """Return what site north says of its first report."""
    site = changes.get("site_id", NORTH)
    study = changes.get("study_id", STUDY)
    draft = ReportDraft(
        study_id=study,
        site_id=site,
        key_epoch=1,
        kind="outcome",
        period="2026-02",
        sequence=1,
        previous=genesis(study, site),
        model_version=digest_bytes("test", b"model"),
        schema=digest_bytes("test", b"schema"),
        roster=roster.digest,
        sealed_at_s=NOW_S + 60,
    )
    return replace(draft, **changes)


def make_report(
    roster: MonitoringRoster,
    *,
    key: SigningKey | None = None,
    content: bytes | None = None,
    recipients: Sequence[AnySealingKey] | None = None,
    **changes: Any,
) -> bytes:
    """Return an envelope of site north under a roster."""
    draft = make_draft(roster, **changes)
    if recipients is None:
        recipients = [board.sealing_key for board in roster.recipients(draft.kind)]
    return seal_report(
        encode_content(make_content()) if content is None else content,
        draft,
        signing_key=key or SITE_KEYS[draft.site_id],
        recipients=recipients,
    )


@dataclass(frozen=True)
class Notices:
    """One valid notice's content of each kind, about the same study."""

    receipt: Receipt
    decision: Decision
    promotion: Promotion
    closing: Closing
    partial_sum: PartialSum
    check_key: SealedCheckKey


def make_notices() -> Notices:
    """Return the notices of the tests."""
    return Notices(
        receipt=Receipt(STUDY, NORTH, 1, digest_bytes("test", b"report"), BOARD, NOW_S + 90),
        decision=Decision(
            study_id=STUDY,
            number=1,
            previous=decision_genesis(CONSORTIUM, STUDY),
            action=Action.PAUSE_SITE,
            site_id=NORTH,
            model_version=None,
            reason="Sodium is missing since the analyser was exchanged.",
            period="2026-02",
            opened_at_s=NOW_S + 100,
        ),
        promotion=Promotion(STUDY, digest_bytes("test", b"plan"), Digest("5" * 64), 1, NOW_S + 110),
        closing=Closing(
            study_id=STUDY,
            period="2026-02",
            kind=ReportKind.OUTCOME,
            schema=Digest("6" * 64),
            model_version=Digest("5" * 64),
            sum_key=Digest("7" * 64),
            board_id=BOARD,
            sites=(
                ClosedSite(NORTH, Digest("a" * 64), Digest("b" * 64)),
                ClosedSite(SOUTH, Digest("c" * 64), Digest("d" * 64)),
            ),
            closed_at_s=NOW_S + 120,
        ),
        partial_sum=PartialSum(
            study_id=STUDY,
            period="2026-02",
            kind=ReportKind.OUTCOME,
            closing=Digest("8" * 64),
            aggregator=AGGREGATOR,
            sealed=((OPENING_KEYS[BOARD].fingerprint, b"sealed sum"),),
        ),
        check_key=SealedCheckKey(
            1, Digest("9" * 64), ((OPENING_KEYS[BOARD].fingerprint, b"sealed key"),)
        ),
    )


def rotated(before: MonitoringRoster, new: SigningKey, **changes: Any) -> MonitoringRoster:
    """Return the version in which site north has a new key, countersigned by its old one."""
    change = sign_key_change(
        SITE_KEYS[NORTH], consortium=CONSORTIUM, site_id=NORTH, key_epoch=2, new=new.verify_key
    )
    fields = {"verify_key": new.verify_key, "key_epoch": 2, "countersignature": change}
    return next_roster(before, sites=with_site(before, NORTH, **{**fields, **changes}))


def refused(number: str, act: Callable[..., object], *arguments: object) -> None:
    """Check that a call is refused with this number."""
    with pytest.raises(CohortiumError) as caught:
        act(*arguments)
    assert caught.value.number == number, caught.value
