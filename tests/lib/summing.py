"""Six sites, two aggregators and a board with real keys, and a relay in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.canonical import digest_bytes
from common.crypto.keys import AnySealingKey, OpeningKey, SigningKey
from common.ids import BoardId, Digest, SiteId, StudyId
from common.privacy.discrete_gaussian import discrete_gaussian, system_words, variance_of
from common.protocol.monitoring.check_key import CheckKey, seal_check_key
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.notice_checks import verify_receipt
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.report_content import ReportContent
from common.protocol.monitoring.report_envelope import (
    read_report_header,
    report_digest,
    seal_report,
)
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportDraft, genesis
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterSite,
    Standing,
    roster_genesis,
)
from common.protocol.monitoring.roster_file import AUTHORITY
from common.study.plan import StudyPlan
from common.study.report_periods import parse_period, report_late_s
from common.study.report_tensors import (
    ReportKind,
    report_mechanisms,
    report_tensors,
    schema_digest,
)
from server.monitor_board.aggregation import Aggregating
from server.monitor_board.aggregator import Aggregator, ArrivedBytes
from server.monitor_board.aggregator_store import AggregatorStore
from server.monitor_board.secure_sums import (
    JoinedSum,
    SeenShare,
    acknowledged_shares,
    join_partial_sums,
    make_closing,
)
from site_client.release.report_shares import split_content
from tests.lib.plans import make_plan

STUDY = StudyId("small-study")
PERIOD = "2026-02"
KIND = ReportKind.CASE_MIX
MODEL = digest_bytes("model", b"promoted")
BOARD = BoardId("board")
AGGREGATORS = {
    BoardRole.AGGREGATOR_A: BoardId("aggregator-a"),
    BoardRole.AGGREGATOR_B: BoardId("aggregator-b"),
}


class MemoryRelay:
    """Keeps what it is given, in order; what `hidden` names it shows to nobody."""

    def __init__(self) -> None:
        self.stored_reports: list[bytes] = []
        self.stored_notices: list[bytes] = []
        self.hidden: set[bytes] = set()
        self.now_s = 0

    def reports(self, study_id: StudyId, after_position: int) -> Iterable[ArrivedBytes]:
        return self._after(self.stored_reports, after_position)

    def notices(self, after_position: int) -> Iterable[ArrivedBytes]:
        return self._after(self.stored_notices, after_position)

    def publish(self, notice: bytes) -> None:
        if notice not in self.stored_notices:
            self.stored_notices.append(notice)

    def _after(self, stored: list[bytes], position: int) -> list[ArrivedBytes]:
        return [
            ArrivedBytes(place, content, self.now_s)
            for place, content in enumerate(stored, start=1)
            if place > position and content not in self.hidden
        ]


@dataclass(frozen=True)
class Member:
    """Keys of one member."""

    signing: SigningKey = field(default_factory=SigningKey.generate)
    opening: OpeningKey = field(default_factory=OpeningKey.generate)


def summed_plan(**monitoring: Any) -> StudyPlan:
    values = {
        "sentinel_features": ["age"],
        "epsilon_per_report": 1.0,
        "mode": "sum",
        "sum_sites_min": 5,
    }
    return make_plan(monitoring=values | monitoring)


def noised(plan: StudyPlan, exact: np.ndarray, kind: ReportKind = KIND) -> np.ndarray:
    """Return counts with the noise that a site draws."""
    words = system_words()
    noise = [
        discrete_gaussian(variance_of(tensor.noise_multiplier), words)
        for tensor in report_tensors(plan, kind)
        for _ in range(tensor.cells)
    ]
    return exact + np.array(noise, dtype=np.int64)


def split_report(
    content: ReportContent,
    draft: ReportDraft,
    *,
    check_key: CheckKey,
    signing_key: SigningKey,
    aggregator_a: AnySealingKey,
    aggregator_b: AnySealingKey,
) -> tuple[bytes, bytes]:
    """Return the envelopes for aggregators A and B, as a site seals them."""
    first, second = split_content(
        content,
        study_id=draft.study_id,
        site_id=draft.site_id,
        schema=draft.schema,
        check_key=check_key,
    )
    to_a = seal_report(
        first,
        dataclasses.replace(draft, kind=SHARE_A),
        signing_key=signing_key,
        recipients=[aggregator_a],
    )
    following = dataclasses.replace(
        draft, kind=SHARE_B, sequence=draft.sequence + 1, previous=report_digest(to_a)
    )
    to_b = seal_report(second, following, signing_key=signing_key, recipients=[aggregator_b])
    return to_a, to_b


class Consortium:
    """Everybody, in one process; each part only gets what it would have.

    Args:
        folder: for the aggregators' stores.
        sites: how many.
    """

    def __init__(self, folder: Path, *, sites: int = 6, plan: StudyPlan | None = None) -> None:
        self.folder = folder
        self.plan = plan or summed_plan()
        self.cells = sum(tensor.cells for tensor in report_tensors(self.plan, KIND))
        self.authority = SigningKey.generate()
        self.sites = {SiteId(f"site-{number:02d}"): Member() for number in range(sites)}
        self.board = Member()
        self.aggregators = {role: Member() for role in AGGREGATORS}
        self.check_key = CheckKey.generate(1)
        self.relay = MemoryRelay()
        self.roster = self._roster()
        self.heads: dict[SiteId, tuple[int, Digest]] = {}
        period = parse_period(PERIOD, self.plan.monitoring.every)  # type: ignore[union-attr]
        self.late_s = report_late_s(self.plan, KIND, period)
        self.relay.now_s = self.late_s - 86_400
        members = [self.board, *self.sites.values()]
        sealed = seal_check_key(
            self.check_key, members=[member.opening.sealing_key for member in members]
        )
        self.relay.publish(sign_notice(sealed, {AUTHORITY: self.authority}))

    def _roster(self) -> MonitoringRoster:
        boards = [(BOARD, BoardRole.BOARD, self.board)]
        boards += [(name, role, self.aggregators[role]) for role, name in AGGREGATORS.items()]
        return MonitoringRoster(
            version=1,
            consortium="test",
            authority=self.authority.verify_key,
            previous=roster_genesis("test"),
            not_before_s=0,
            not_after_s=2**40,
            grace_s=0,
            suites=(2,),
            sites=tuple(
                RosterSite(site_id, member.signing.verify_key, 1, Standing.ACTIVE)
                for site_id, member in sorted(self.sites.items())
            ),
            boards=tuple(
                RosterBoard(
                    name,
                    role,
                    member.opening.sealing_key,
                    member.signing.verify_key,
                    Standing.ACTIVE,
                )
                for name, role, member in sorted(boards, key=lambda item: item[0])
            ),
            deciders=(),
        )

    def content(self, counts: np.ndarray, **changes: Any) -> ReportContent:
        whole = ReportContent(
            kind=KIND,
            period=PERIOD,
            mechanisms=report_mechanisms(self.plan, KIND),
            epsilon_spent=1.0,
            epsilon_remaining=2.0,
            delta=self.plan.privacy.delta,
            ledger_head=digest_bytes("ledger", b""),
            software_version="0.1.0",
            counts=counts,
        )
        return dataclasses.replace(whole, **changes)

    def split(
        self,
        site_id: SiteId,
        counts: np.ndarray,
        *,
        check_key: CheckKey | None = None,
        model_version: Digest = MODEL,
        **changes: Any,
    ) -> tuple[bytes, bytes]:
        """Return a site's two envelopes; its chain goes on."""
        sequence, previous = self.heads.get(site_id, (0, genesis(STUDY, site_id)))
        content = self.content(counts, **changes)
        draft = ReportDraft(
            study_id=STUDY,
            site_id=site_id,
            key_epoch=1,
            kind=content.kind.value,
            period=content.period,
            sequence=sequence + 1,
            previous=previous,
            model_version=model_version,
            schema=schema_digest(self.plan, KIND),
            roster=self.roster.digest,
            sealed_at_s=self.relay.now_s,
        )
        key_of = {role: member.opening.sealing_key for role, member in self.aggregators.items()}
        envelopes = split_report(
            content,
            draft,
            check_key=check_key or self.check_key,
            signing_key=self.sites[site_id].signing,
            aggregator_a=key_of[BoardRole.AGGREGATOR_A],
            aggregator_b=key_of[BoardRole.AGGREGATOR_B],
        )
        self.heads[site_id] = (sequence + 2, report_digest(envelopes[1]))
        return envelopes

    def report_all(self, counts: Sequence[np.ndarray]) -> None:
        """Let every site send its two shares."""
        for site_id, vector in zip(self.sites, counts, strict=True):
            self.relay.stored_reports.extend(self.split(site_id, vector))

    def aggregating(self, role: BoardRole) -> Aggregating:
        opening = self.aggregators[role].opening
        return Aggregating(
            aggregator_id=AGGREGATORS[role],
            role=role,
            opening_keys={opening.fingerprint: opening},
            roster=self.roster,
            plans={STUDY: self.plan},
            check_key=self.check_key.commitment,
        )

    def aggregator(self, role: BoardRole, *, relay: Any = None) -> Aggregator:
        return Aggregator(
            AggregatorStore(self.folder / f"{role.value}.db"),
            relay or self.relay,
            signing_key=self.aggregators[role].signing,
            authority=self.authority.verify_key,
            take_roster=lambda data: None,
            current=lambda: self.aggregating(role),
        )

    def seen_shares(self) -> list[SeenShare]:
        return [
            SeenShare(report_digest(envelope), read_report_header(envelope))
            for envelope in self.relay.stored_reports
        ]

    def receipts(self) -> list[Receipt]:
        notices = [(data, read_notice(data).content) for data in self.relay.stored_notices]
        return [
            verify_receipt(data, self.roster)
            for data, content in notices
            if isinstance(content, Receipt)
        ]

    def closing(self, **changes: Any) -> Closing | None:
        """Return the closing that the board would publish now."""
        values: dict[str, Any] = {
            "shares": self.seen_shares(),
            "acknowledged": acknowledged_shares(self.receipts(), self.roster),
            "roster": self.roster,
            "model_version": MODEL,
            "check_key": self.check_key,
            "board_id": BOARD,
            "now_s": self.late_s,
        }
        return make_closing(self.plan, KIND, PERIOD, **(values | changes))

    def sign_closing(self, closing: Closing) -> bytes:
        return sign_notice(closing, {BOARD: self.board.signing})

    def answers(self) -> list[bytes]:
        """Return the partial sums at the relay."""
        return [
            data
            for data in self.relay.stored_notices
            if read_notice(data).kind.value == "partial-sum"
        ]

    def join(self, closing_notice: bytes, answers: Sequence[bytes] | None = None) -> JoinedSum:
        opening = self.board.opening
        return join_partial_sums(
            closing_notice,
            self.answers() if answers is None else answers,
            plan=self.plan,
            roster=self.roster,
            opening_keys={opening.fingerprint: opening},
            check_keys=[self.check_key],
        )
