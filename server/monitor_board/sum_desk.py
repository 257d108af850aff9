"""The board's work on secure sums in one pass: close what is due, join what was answered.

A closing is kept in the transaction that queues it for publication, and there is one of a sum,
whichever board was first; so a pass that is killed is simply made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ProtocolError
from common.ids import BoardId, StudyId
from common.protocol.monitoring.check_key import CheckKey, SealedCheckKey, open_check_key
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.roster import MonitoringRoster
from common.study.report_periods import REFERENCE, parse_period
from common.study.report_tensors import ReportKind
from server.monitor_board import sum_book
from server.monitor_board.notices_out import put_notice
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import PlanOnBoard, read_plans
from server.monitor_board.roster_book import read_book
from server.monitor_board.secure_sums import SeenShare, join_partial_sums, make_closing
from server.monitor_board.storage.database import BoardDatabase

logger = logging.getLogger("cohortium.board")


@dataclass(frozen=True)
class SumsDone:
    """What one pass did: sums closed, joined, and refused with a number."""

    closed: int
    joined: int
    refused: int


@dataclass(frozen=True)
class SumDesk:
    """Works on the sums of one board.

    Args:
        keys: what opens check keys and partial sums.
        board_id, signing_key: sign closings.
    """

    database: BoardDatabase
    keys: OpeningKeys
    board_id: BoardId
    signing_key: SigningKey

    def work(self, *, now_s: int) -> SumsDone:
        """Do one pass; raises `StoreError`, or `ProtocolError` O5 or O9 without a roster."""
        with self.database.transaction() as connection:
            roster = read_book(connection).in_force(now_s)
            check_keys = tuple(self._check_keys(connection))
            closed = joined = refused = 0
            for study_id, on_board in read_plans(connection).items():
                monitoring = on_board.plan.monitoring
                if monitoring is None or monitoring.mode != "sum":
                    continue
                if check_keys:
                    closed += self._close(connection, on_board, roster, check_keys[0], now_s)
                for data in sum_book.closings_of(connection, study_id):
                    outcome = self._join(connection, data, on_board, roster, check_keys, now_s)
                    joined += outcome == "joined"
                    refused += outcome == "refused"
        return SumsDone(closed, joined, refused)

    def _check_keys(self, connection: Connection) -> Iterable[CheckKey]:
        for data in sum_book.check_key_notices(connection):
            sealed = read_notice(data).content
            if not isinstance(sealed, SealedCheckKey):
                continue
            held = [self.keys.keys[name] for name, _ in sealed.sealed if name in self.keys.keys]
            for key in held:
                try:
                    yield open_check_key(sealed, key=key)
                except CohortiumError as error:
                    # One that was sealed wrongly to us stops neither other sums nor older keys.
                    logger.warning("a check key does not open here: %s", error.refused)
                    continue
                break

    def _close(
        self,
        connection: Connection,
        on_board: PlanOnBoard,
        roster: MonitoringRoster,
        check_key: CheckKey,
        now_s: int,
    ) -> int:
        study_id = on_board.study_id
        known = {_sum_of(data) for data in sum_book.closings_of(connection, study_id)}
        shares = sum_book.seen_shares(connection, study_id)
        acknowledged = sum_book.acknowledged(connection, roster)
        closed = 0
        for kind, period in sorted(_sums_of(shares, on_board), key=lambda item: item[1]):
            if (study_id, period, kind) in known:
                continue
            candidates = [
                make_closing(
                    on_board.plan,
                    kind,
                    period,
                    shares=shares,
                    acknowledged=acknowledged,
                    roster=roster,
                    model_version=promotion.model_version,
                    check_key=check_key,
                    board_id=self.board_id,
                    now_s=now_s,
                )
                for promotion in reversed(on_board.promotions)
            ]
            found = [item for item in candidates if item is not None]
            if found:  # of two models at once, the one of most sites; the newer one of equals
                closing = max(found, key=lambda item: len(item.sites))
                notice = sign_notice(closing, {self.board_id: self.signing_key})
                sum_book.keep_closing(connection, notice, closing)
                put_notice(connection, notice, now_s=now_s)
                closed += 1
        return closed

    def _join(
        self,
        connection: Connection,
        data: bytes,
        on_board: PlanOnBoard,
        roster: MonitoringRoster,
        check_keys: tuple[CheckKey, ...],
        now_s: int,
    ) -> str:
        notice = read_notice(data)
        answers = sum_book.answers_to(connection, notice.digest)
        is_open = not sum_book.is_decided(connection, notice.digest)
        if len(answers) < 2 or not is_open or not isinstance(notice.content, Closing):
            return ""
        try:
            joined = join_partial_sums(
                data,
                answers,
                plan=on_board.plan,
                roster=roster,
                opening_keys=self.keys.keys,
                check_keys=check_keys,
            )
        except CohortiumError as error:
            if not error.number:
                raise
            sum_book.put_refusal(
                connection,
                notice.content,
                notice.digest,
                number=error.number,
                words=f"expected {error.expected}; arrived {error.arrived}",
                now_s=now_s,
            )
            return "refused"
        sum_book.put_sum(connection, joined, now_s=now_s)
        return "joined"


def _sum_of(data: bytes) -> tuple[StudyId, str, ReportKind] | None:
    content = read_notice(data).content
    if not isinstance(content, Closing):
        return None
    return content.study_id, content.period, content.kind


def _sums_of(
    shares: Iterable[SeenShare], on_board: PlanOnBoard
) -> frozenset[tuple[ReportKind, str]]:
    kinds = {on_board.schema(kind).digest: kind for kind in ReportKind}
    named = {
        (kinds[share.header.schema], share.header.period)
        for share in shares
        if share.header.schema in kinds
    }
    return frozenset(item for item in named if _is_of_calendar(item[1], on_board))


def _is_of_calendar(period: str, on_board: PlanOnBoard) -> bool:
    # A share's period is the site's word: one that the plan does not have stops no other sum.
    monitoring = on_board.plan.monitoring
    if monitoring is None or period == REFERENCE:
        return True
    try:
        parse_period(period, monitoring.every)
    except ProtocolError:
        return False
    return True
