"""What the relay brings beside reports: rosters, promotions, decisions, other boards' receipts.

Each is verified before it is kept; one that does not verify is put away with its reason. What comes
while no roster is in force waits, and is judged again in its order when one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from common.crypto.keys import VerifyKey
from common.errors import CohortiumError, ConfigError, ProtocolError
from common.protocol.monitoring.notice_checks import verify_promotion, verify_receipt
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.signed_notice import NoticeKind, read_signed
from server.monitor_board.decision_book import take_decision
from server.monitor_board.notices_out import bytes_digest
from server.monitor_board.plan_book import take_promotion
from server.monitor_board.relay_connection import ArrivedNotice
from server.monitor_board.report_chain import ReportChain
from server.monitor_board.roster_book import read_book, take_roster
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.storage.tables import refused_notices, reports, waiting_notices
from server.monitor_board.sum_book import SUM_NOTICES, take_sum_notice

STREAM = "notices"
WAITING_MAX: Final = 4096
WAITING_BYTES_MAX: Final = 256 * 2**20
"""The relay admits members' notices only, so that only a hostile relay reaches these."""


class _NoRosterError(Exception):
    """No roster is in force: nothing is wrong with the notice."""


@dataclass(frozen=True)
class NoticeReader:
    """Reads notices for one board.

    Args:
        authority: whose rosters it believes.
        coordinator: whose promotions it believes.
    """

    database: BoardDatabase
    authority: VerifyKey
    coordinator: VerifyKey

    def take(self, batch: Sequence[ArrivedNotice], *, now_s: int) -> frozenset[NoticeKind]:
        """Take notices in the order of their positions, all in one transaction.

        Each counts for those behind it: a roster, for a decision that its deciders signed.

        Returns:
            The kinds of those that verified.
        """
        with self.database.transaction() as connection:
            kinds = self._take_waiting(connection, now_s)
            for arrived in batch:
                kind = self._take_one(connection, arrived, now_s)
                kinds.add(kind)
                if kind is NoticeKind.ROSTER:
                    kinds |= self._take_waiting(connection, now_s)
            if batch:
                chain = ReportChain(connection, now_s=now_s)
                chain.move_position(STREAM, max(arrived.position for arrived in batch))
        return frozenset(kind for kind in kinds if kind is not None)

    def _take_waiting(self, connection: Connection, now_s: int) -> set[NoticeKind | None]:
        """Judge what waits, the oldest first, if a roster is in force."""
        query = select(waiting_notices).order_by(waiting_notices.c.position)
        rows = connection.execute(query).all()
        if not rows or not _is_roster_in_force(connection, now_s):
            return set()
        connection.execute(delete(waiting_notices))
        return {
            self._take_one(connection, ArrivedNotice(row.position, row.notice), now_s)
            for row in rows
        }

    def _take_one(
        self, connection: Connection, arrived: ArrivedNotice, now_s: int
    ) -> NoticeKind | None:
        try:
            with connection.begin_nested():
                return self._keep(connection, arrived.notice, now_s)
        except _NoRosterError as nothing:
            if not _put_aside(connection, arrived):
                _put_away(connection, arrived, _cause(nothing), now_s)
        except CohortiumError as error:
            _put_away(connection, arrived, error, now_s)
        return None

    def _keep(self, connection: Connection, notice: bytes, now_s: int) -> NoticeKind:
        kind = read_signed(notice).kind
        if kind is NoticeKind.ROSTER:
            take_roster(connection, notice, authority=self.authority, now_s=now_s)
        elif kind is NoticeKind.PROMOTION:
            take_promotion(connection, verify_promotion(notice, self.coordinator))
        elif kind is NoticeKind.DECISION:
            take_decision(connection, notice, rosters=_rosters(connection, now_s), now_s=now_s)
        elif kind is NoticeKind.RECEIPT:
            _compare_receipt(connection, notice, now_s)
        if kind in SUM_NOTICES:
            take_sum_notice(
                connection,
                notice,
                roster=_rosters(connection, now_s)[-1],
                authority=self.authority,
                now_s=now_s,
            )
        return kind


def coordinator_key(text: str) -> VerifyKey:
    """Return the coordinator's key from its text form; raises `ConfigError`."""
    try:
        return VerifyKey.from_text(text)
    except CohortiumError:
        raise ConfigError(
            "the coordinator's key is none",
            expected="the certificate file that the coordinator signed",
            arrived="another file",
            todo="run `cohortium-board certificate take FILE` again",
        ) from None


def _compare_receipt(connection: Connection, notice: bytes, now_s: int) -> None:
    """B8: another board holds the same report at a place, or one of us was shown another chain."""
    receipt = verify_receipt(notice, _rosters(connection, now_s)[-1])
    held = connection.execute(
        select(reports.c.digest).where(
            reports.c.study_id == receipt.study_id,
            reports.c.site_id == receipt.site_id,
            reports.c.sequence == receipt.sequence,
        )
    ).scalar()
    if held is not None and held != receipt.head:
        raise refusal(
            "B8",
            expected=f"report {receipt.sequence} of site {receipt.site_id} as it is held here",
            arrived=f"board {receipt.board_id} holds another",
            todo="compare the two envelopes with that board: the site signed both",
        )


def _rosters(connection: Connection, now_s: int) -> tuple[MonitoringRoster, ...]:
    try:
        return read_book(connection).until(now_s)
    except ProtocolError as error:
        raise _NoRosterError from error


def _is_roster_in_force(connection: Connection, now_s: int) -> bool:
    try:
        return bool(_rosters(connection, now_s))
    except _NoRosterError:
        return False


def _cause(nothing: _NoRosterError) -> CohortiumError:
    if not isinstance(nothing.__cause__, CohortiumError):
        message = "it is raised from the refusal of a roster"
        raise TypeError(message)
    return nothing.__cause__


def _put_aside(connection: Connection, arrived: ArrivedNotice) -> bool:
    """Keep a notice for later; return whether there was room."""
    size = func.coalesce(func.sum(func.length(waiting_notices.c.notice)), 0)
    count, held_bytes = connection.execute(select(func.count(), size)).one()
    if count >= WAITING_MAX or held_bytes + len(arrived.notice) > WAITING_BYTES_MAX:
        return False
    known = select(waiting_notices.c.position).where(waiting_notices.c.position == arrived.position)
    if connection.execute(known).first() is None:
        connection.execute(
            insert(waiting_notices).values(position=arrived.position, notice=arrived.notice)
        )
    return True


def _put_away(
    connection: Connection, arrived: ArrivedNotice, error: CohortiumError, now_s: int
) -> None:
    reason = f"{error.number} {error.refused}: expected {error.expected}; arrived {error.arrived}"
    known = select(refused_notices.c.position).where(refused_notices.c.position == arrived.position)
    if connection.execute(known).first() is None:
        connection.execute(
            insert(refused_notices).values(
                position=arrived.position,
                digest=bytes_digest(arrived.notice),
                reason=reason.strip(),
                at_s=now_s,
            )
        )
