"""One aggregator of a secure sum: reads shares and closings, acknowledges, answers once, publishes.

One step: (1) read notices and shares from the relay and keep them; (2) open each new share and
acknowledge it with a receipt, so that the board closes over shares that can be added; (3) answer
each closing that passes its checks, once for each study, period and kind, the answer being on disk
before anybody sees it; (4) publish what is not yet published. A step that is killed anywhere is
made again by the next one, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from common.canonical import digest_bytes
from common.crypto.keys import SigningKey, VerifyKey
from common.errors import CohortiumError, SignatureError
from common.ids import Digest, StudyId
from common.protocol.monitoring.check_key import SealedCheckKey
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.notice_checks import verify_check_key
from common.protocol.monitoring.notice_codec import Notice, read_notice, sign_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.partial_sum import PartialSum, seal_partial_sum
from common.protocol.monitoring.report_envelope import read_report_header, report_digest
from common.protocol.monitoring.roster import BoardRole
from common.protocol.monitoring.signed_notice import NoticeKind, verify_signed
from common.study.plan_bytes import plan_digest
from server.monitor_board.aggregation import (
    SHARE_OF_ROLE,
    Aggregating,
    OpenedShare,
    check_closing,
    open_share,
    sum_shares,
)
from server.monitor_board.aggregator_store import AggregatorStore

NOTICES: Final = "notices"


@dataclass(frozen=True)
class ArrivedBytes:
    """What the relay gave: an envelope or a notice, its position, and when the relay stored it."""

    position: int
    content: bytes
    received_at_s: int


class Relay(Protocol):
    """What an aggregator needs of a relay."""

    def notices(self, after_position: int) -> Iterable[ArrivedBytes]:
        """Yield the notices behind a position, in order; raises `TransportError`."""

    def reports(self, study_id: StudyId, after_position: int) -> Iterable[ArrivedBytes]:
        """Yield the envelopes of a study behind a position, in order; raises `TransportError`."""

    def publish(self, notice: bytes) -> None:
        """Store a notice for everybody; raises `TransportError`."""


@dataclass(frozen=True)
class Refused:
    """A share or closing that failed a check: its digest and the error, for the operator."""

    digest: Digest
    error: CohortiumError


@dataclass(frozen=True)
class Step:
    """What one step did.

    Args:
        acknowledged: shares opened.
        answered: closings answered.
        refused: what failed a check, with its number.
    """

    acknowledged: int
    answered: int
    refused: tuple[Refused, ...]


class Aggregator:
    """One aggregator.

    Args:
        store: its durable state.
        relay: where shares and closings come from, and answers go.
        signing_key: its own.
        authority: whose check keys it believes.
        take_roster: takes a roster's notice, or raises with the number of its refusal.
        current: returns what holds now: roster, plans, keys; asked after new rosters were taken.
    """

    def __init__(
        self,
        store: AggregatorStore,
        relay: Relay,
        *,
        signing_key: SigningKey,
        authority: VerifyKey,
        take_roster: Callable[[bytes], None],
        current: Callable[[], Aggregating],
    ) -> None:
        self._store = store
        self._relay = relay
        self._signing_key = signing_key
        self._authority = authority
        self._take_roster = take_roster
        self._current = current

    def step(self, *, now_s: int) -> Step:
        """Do one step; raises `TransportError` or `StoreError`, after which it is made again."""
        refused: list[Refused] = []
        with self._store.together():
            self._keep_notices(refused)
        aggregating = replace(self._current(), check_key=self._store.check_key())
        with self._store.together():
            self._keep_shares(aggregating)
        with self._store.together():
            acknowledged = self._acknowledge(aggregating, refused, now_s=now_s)
        answered = self._answer(aggregating, refused, now_s=now_s)
        with self._store.together():  # the relay keeps a notice once, however often it comes
            for number, notice in self._store.unpublished():
                self._relay.publish(notice)
                self._store.set_published(number)
        return Step(acknowledged, answered, tuple(refused))

    def _keep_notices(self, refused: list[Refused]) -> None:
        for arrived in self._relay.notices(self._store.position(NOTICES)):
            try:
                self._keep_notice(read_notice(arrived.content), arrived.content)
            except CohortiumError as error:
                if not error.number:  # a full disk, not a notice that fails a check
                    raise
                refused.append(Refused(digest_bytes("notice", arrived.content), error))
            self._store.move_position(NOTICES, arrived.position)

    def _keep_notice(self, notice: Notice, data: bytes) -> None:
        content = notice.content
        if notice.kind is NoticeKind.ROSTER:
            self._take_roster(data)
        elif isinstance(content, SealedCheckKey):
            verify_check_key(data, self._authority)
            self._store.keep_check_key(content.number, content.commitment)
        elif isinstance(content, Closing):  # its signature is checked under the roster of the day
            self._store.keep_closing(notice.digest, content, data)
        elif isinstance(content, PartialSum) and self._is_own(notice, content):
            # Only a store that was lost does not know it: what was published stays answered.
            self._store.keep_answer(content.study_id, content.period, content.kind, content.closing)

    def _is_own(self, notice: Notice, content: PartialSum) -> bool:
        try:
            verify_signed(notice.signed, by=content.aggregator, key=self._signing_key.verify_key)
        except SignatureError:
            return False
        return True

    def _keep_shares(self, aggregating: Aggregating) -> None:
        mine = SHARE_OF_ROLE.get(aggregating.role)
        for study_id in aggregating.plans:
            stream = f"reports/{study_id}"
            for arrived in self._relay.reports(study_id, self._store.position(stream)):
                try:
                    header = read_report_header(arrived.content)
                except CohortiumError:
                    header = None  # the relay stores no such bytes; a hostile one may
                if header is not None and (header.kind, header.study_id) == (mine, study_id):
                    self._store.keep_share(
                        report_digest(arrived.content),
                        header,
                        arrived.content,
                        arrived_at_s=arrived.received_at_s,
                    )
                self._store.move_position(stream, arrived.position)

    def _acknowledge(self, aggregating: Aggregating, refused: list[Refused], *, now_s: int) -> int:
        acknowledged = 0
        circumstances = _circumstances(aggregating)
        for held in self._store.shares_to_try(circumstances):
            try:
                share = open_share(held.envelope, aggregating, arrived_at_s=held.arrived_at_s)
            except CohortiumError as error:
                refused.append(Refused(held.digest, error))
                self._store.set_tried(held.digest, circumstances)
                continue
            receipt = Receipt(
                study_id=share.header.study_id,
                site_id=share.header.site_id,
                sequence=share.header.sequence,
                head=held.digest,
                board_id=aggregating.aggregator_id,
                at_s=now_s,
            )
            signed = sign_notice(receipt, {aggregating.aggregator_id: self._signing_key})
            self._store.acknowledge(held.digest, signed)
            acknowledged += 1
        return acknowledged

    def _answer(self, aggregating: Aggregating, refused: list[Refused], *, now_s: int) -> int:
        answered = 0
        for data in self._store.open_closings():
            digest = read_notice(data).digest
            try:
                closing, digest = check_closing(data, aggregating, now_s=now_s)
                summed = sum_shares(closing, self._named(closing, aggregating), aggregating)
                partial = seal_partial_sum(
                    summed,
                    closing,
                    closing_digest=digest,
                    aggregator=aggregating.aggregator_id,
                    boards=[
                        board.sealing_key
                        for board in aggregating.roster.active_boards()
                        if board.role is BoardRole.BOARD
                    ],
                )
                notice = sign_notice(partial, {aggregating.aggregator_id: self._signing_key})
                self._store.answer(closing, digest, notice)
            except CohortiumError as error:
                if not error.number:
                    raise
                refused.append(Refused(digest, error))
                continue
            answered += 1
        return answered

    def _named(self, closing: Closing, aggregating: Aggregating) -> Mapping[Digest, OpenedShare]:
        """Return the shares here among those that a closing names, opened again."""
        shares: dict[Digest, OpenedShare] = {}
        for site in closing.sites:
            for digest in (site.share_a, site.share_b):
                held = self._store.share(digest)
                if held is not None:
                    shares[digest] = open_share(
                        held.envelope, aggregating, arrived_at_s=held.arrived_at_s
                    )
        return shares


def _circumstances(aggregating: Aggregating) -> str:
    """Name what a share was tried under: a refused one is tried again when any of it changes."""
    plans = sorted(plan_digest(plan) for plan in aggregating.plans.values())
    keys = sorted(aggregating.opening_keys)
    parts = [aggregating.roster.digest, aggregating.check_key or "", *plans, *keys]
    return digest_bytes("aggregator-circumstances", *(part.encode() for part in parts))
