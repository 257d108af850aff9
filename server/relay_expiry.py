"""Which notices of boards the relay need not keep, so that its store does not grow for ever.

Only receipts and closings go: decisions, promotions, rosters, check keys and partial sums stay.
    (1) a board's receipt that is old and that a newer one of the same board, site and study has
        replaced: a site waits for the receipt of its newest report alone (F16). An aggregator's
        stays: each is about one share (T3), and a board closes sums by them, however late it reads
    (2) what a board left and signed whose every key the newest roster has revoked: no reader
        believes it (T3). What it only passed on of another board stays, and a closing that an
        aggregator has answered, for nobody may answer another (V17).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from common.ids import Digest
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.partial_sum import PartialSum
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, Standing
from common.protocol.monitoring.signed_notice import NoticeKind

DAY_S: Final = 86_400


@dataclass(frozen=True)
class KeptNotice:
    """A notice with what expiry asks of it; `sender` is the board that left it."""

    position: int
    sender: str
    received_at_s: int
    notice: bytes


class NoticeStore(Protocol):
    """What expiry reads and deletes."""

    def kept_notices(self, kind: NoticeKind) -> Iterator[KeptNotice]:
        """Yield the notices of a kind, in order of position."""

    def delete_notices(self, positions: Sequence[int]) -> int:
        """Delete notices, never the newest of all; return how many."""


def expire_notices(
    store: NoticeStore, roster: MonitoringRoster, *, receipt_days: int, now_s: int
) -> int:
    """Delete what need not be kept, and return how many notices that were.

    Raises:
        StoreError: nothing is deleted.
    """
    revoked = _revoked_boards(roster)
    boards = frozenset(
        str(board.board_id) for board in roster.boards if board.role is BoardRole.BOARD
    )
    expired = [*_replaced_receipts(store, boards, before_s=now_s - receipt_days * DAY_S)]
    expired += [item.position for item in _left_by(store, NoticeKind.RECEIPT, revoked)]
    closings = [*_left_by(store, NoticeKind.CLOSING, revoked)]
    if closings:
        answered = set(_answered(store))
        expired += [
            item.position for item in closings if read_notice(item.notice).digest not in answered
        ]
    return store.delete_notices(sorted(set(expired)))


def _revoked_boards(roster: MonitoringRoster) -> frozenset[str]:
    standing = {Standing.ACTIVE, Standing.RETIRED}
    known = {str(board.board_id) for board in roster.boards}
    return frozenset(
        known - {str(item.board_id) for item in roster.boards if item.status in standing}
    )


def _left_by(store: NoticeStore, kind: NoticeKind, boards: frozenset[str]) -> Iterator[KeptNotice]:
    """Yield what these boards left and signed themselves."""
    for item in store.kept_notices(kind):
        if item.sender in boards and set(read_notice(item.notice).signed.signatures) <= boards:
            yield item


def _replaced_receipts(
    store: NoticeStore, boards: frozenset[str], *, before_s: int
) -> Iterator[int]:
    newest: dict[tuple[str, str, str], tuple[int, int]] = {}
    for item in store.kept_notices(NoticeKind.RECEIPT):
        if item.received_at_s >= before_s:
            continue
        receipt = read_notice(item.notice).content
        if not isinstance(receipt, Receipt) or receipt.board_id not in boards:
            continue
        key = (receipt.study_id, receipt.site_id, receipt.board_id)
        place = (receipt.sequence, item.position)
        held = newest.get(key)
        if held is not None:
            yield min(held, place)[1]
        newest[key] = place if held is None else max(held, place)


def _answered(store: NoticeStore) -> Iterator[Digest]:
    for item in store.kept_notices(NoticeKind.PARTIAL_SUM):
        part = read_notice(item.notice).content
        if isinstance(part, PartialSum):
            yield part.closing
