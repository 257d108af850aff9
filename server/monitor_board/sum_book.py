"""What the board keeps of secure sums: receipts of shares, closings, answers, check keys, sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Row, Table, func, insert, select

from common.crypto.keys import VerifyKey
from common.ids import Digest, StudyId
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.notice_checks import (
    verify_check_key,
    verify_closing,
    verify_partial_sum,
    verify_receipt,
)
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.report_envelope import read_report_header
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster
from common.protocol.monitoring.signed_notice import NoticeKind
from common.study.plan import StudyPlan
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.secure_sums import JoinedSum, SeenShare, kept_sum
from server.monitor_board.storage.sum_tables import (
    check_keys,
    closings,
    partial_sums,
    share_receipts,
    sums,
)
from server.monitor_board.storage.tables import envelopes, reports

SUM_NOTICES: Final = (
    NoticeKind.RECEIPT,
    NoticeKind.CLOSING,
    NoticeKind.PARTIAL_SUM,
    NoticeKind.CHECK_KEY,
)


@dataclass(frozen=True)
class SumState:
    """How far one closed sum is.

    Args:
        closing: which sites.
        answers: partial sums that are here; two join.
        is_joined: whether the sum is kept.
        number, words: why it is refused, or empty.
    """

    closing: Closing
    answers: int
    is_joined: bool
    number: str
    words: str


def take_sum_notice(
    connection: Connection,
    data: bytes,
    *,
    roster: MonitoringRoster,
    authority: VerifyKey,
    now_s: int,
) -> None:
    """Verify and keep a notice that is about sums; one of another kind changes nothing.

    Raises:
        ProtocolError, SignatureError: T1 to T3 or T8; nothing was kept.
    """
    notice = read_notice(data)
    if notice.kind is NoticeKind.RECEIPT:
        _take_receipt(connection, data, roster)
    elif notice.kind is NoticeKind.CLOSING:
        keep_closing(connection, data, verify_closing(data, roster))
    elif notice.kind is NoticeKind.PARTIAL_SUM:
        answer = verify_partial_sum(data, roster)
        _insert_once(
            connection,
            partial_sums,
            {"closing": answer.closing, "aggregator": answer.aggregator},
            {"notice": data, "taken_at_s": now_s},
        )
    elif notice.kind is NoticeKind.CHECK_KEY:
        sealed = verify_check_key(data, authority)
        _insert_once(connection, check_keys, {"number": sealed.number}, {"notice": data})


def keep_closing(connection: Connection, data: bytes, closing: Closing) -> None:
    """Keep a verified closing; the same one again changes nothing."""
    names = {"study_id": closing.study_id, "period": closing.period, "kind": closing.kind.value}
    digest = read_notice(data).digest
    _insert_once(connection, closings, {"digest": digest}, {**names, "notice": data})


def seen_shares(connection: Connection, study_id: StudyId) -> tuple[SeenShare, ...]:
    """Return the shares of a study that have a place in their site's chain."""
    rows = connection.execute(
        select(reports.c.digest, envelopes.c.content)
        .join(envelopes, envelopes.c.digest == reports.c.digest)
        .where(reports.c.study_id == study_id, reports.c.kind.in_(("share-a", "share-b")))
    )
    return tuple(SeenShare(Digest(row.digest), read_report_header(row.content)) for row in rows)


def acknowledged(
    connection: Connection, roster: MonitoringRoster
) -> dict[BoardRole, frozenset[Digest]]:
    """Return the shares that each active aggregator opened."""
    role_of = {board.board_id: board.role for board in roster.active_boards()}
    found: dict[BoardRole, set[Digest]] = {role: set() for role in BoardRole}
    for row in connection.execute(select(share_receipts)):
        if row.aggregator in role_of:
            found[role_of[row.aggregator]].add(Digest(row.share))
    return {role: frozenset(digests) for role, digests in found.items()}


def closings_of(connection: Connection, study_id: StudyId) -> tuple[bytes, ...]:
    """Return every closing of a study, of this board and of others."""
    rows = connection.execute(select(closings.c.notice).where(closings.c.study_id == study_id))
    return tuple(row.notice for row in rows)


def answers_to(connection: Connection, closing: Digest) -> tuple[bytes, ...]:
    """Return the partial sums that answer a closing."""
    rows = connection.execute(
        select(partial_sums.c.notice)
        .where(partial_sums.c.closing == closing)
        .order_by(partial_sums.c.aggregator)
    )
    return tuple(row.notice for row in rows)


def check_key_notices(connection: Connection) -> tuple[bytes, ...]:
    """Return the check keys as the authority sealed them, the newest first."""
    rows = connection.execute(select(check_keys.c.notice).order_by(check_keys.c.number.desc()))
    return tuple(row.notice for row in rows)


def is_decided(connection: Connection, closing: Digest) -> bool:
    """Return whether a closing's sum was joined or refused."""
    found = select(sums.c.sequence).where(sums.c.closing == closing)
    return connection.execute(found).first() is not None


def put_sum(connection: Connection, joined: JoinedSum, *, now_s: int) -> None:
    """Keep a sum for good."""
    _put(
        connection,
        joined.closing,
        joined.closing_digest,
        refusal="",
        words="",
        counts=joined.counts.astype("<i8").tobytes(),
        epsilon_spent=joined.epsilon_spent_max,
        epsilon_remaining=joined.epsilon_remaining_min,
        delta=joined.delta,
        joined_at_s=now_s,
    )


def put_refusal(
    connection: Connection, closing: Closing, digest: Digest, *, number: str, words: str, now_s: int
) -> None:
    """Remember that a sum is not used, and why."""
    _put(
        connection,
        closing,
        digest,
        refusal=number,
        words=words,
        counts=b"",
        epsilon_spent=0.0,
        epsilon_remaining=0.0,
        delta=0.0,
        joined_at_s=now_s,
    )


def kept_sums(connection: Connection, plan: StudyPlan) -> tuple[KeptReport, ...]:
    """Return the sums of a study as reports of the site `all`, in the order they were joined."""
    found = []
    for row, closing in _rows(connection, StudyId(plan.study.id)):
        if row.refusal:
            continue
        joined = JoinedSum(
            closing=closing,
            closing_digest=Digest(row.closing),
            counts=np.frombuffer(row.counts, "<i8").astype(np.int64),
            epsilon_spent_max=row.epsilon_spent,
            epsilon_remaining_min=row.epsilon_remaining,
            delta=row.delta,
        )
        found.append(kept_sum(joined, plan, sequence=row.sequence, received_at_s=row.joined_at_s))
    return tuple(found)


def sum_states(connection: Connection, study_id: StudyId) -> tuple[SumState, ...]:
    """Return every closed sum of a study, by period."""
    decided = {row.closing: row for row, _ in _rows(connection, study_id)}
    found = []
    for data in closings_of(connection, study_id):
        notice = read_notice(data)
        if not isinstance(notice.content, Closing):
            continue
        row = decided.get(notice.digest)
        state = SumState(
            closing=notice.content,
            answers=len(answers_to(connection, notice.digest)),
            is_joined=row is not None and not row.refusal,
            number="" if row is None else row.refusal,
            words="" if row is None else row.words,
        )
        found.append(state)
    return tuple(sorted(found, key=lambda state: (state.closing.period, state.closing.kind.value)))


def _take_receipt(connection: Connection, data: bytes, roster: MonitoringRoster) -> None:
    receipt = verify_receipt(data, roster)
    aggregators = {
        board.board_id for board in roster.active_boards() if board.role is not BoardRole.BOARD
    }
    if receipt.board_id in aggregators:
        key = {"share": receipt.head, "aggregator": receipt.board_id}
        _insert_once(connection, share_receipts, key, {})


def _put(connection: Connection, closing: Closing, digest: Digest, **values: Any) -> None:
    newest = select(func.max(sums.c.sequence)).where(sums.c.study_id == closing.study_id)
    connection.execute(
        insert(sums).values(
            study_id=closing.study_id,
            sequence=(connection.execute(newest).scalar() or 0) + 1,
            closing=digest,
            **values,
        )
    )


def _rows(connection: Connection, study_id: StudyId) -> list[tuple[Row[Any], Closing]]:
    rows = connection.execute(
        select(sums, closings.c.notice)
        .join(closings, closings.c.digest == sums.c.closing)
        .where(sums.c.study_id == study_id)
        .order_by(sums.c.sequence)
    )
    found = [(row, read_notice(row.notice).content) for row in rows]
    return [(row, content) for row, content in found if isinstance(content, Closing)]


def _insert_once(
    connection: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    known = select(*table.primary_key.columns).where(
        *(table.c[name] == value for name, value in key.items())
    )
    if connection.execute(known).first() is None:
        connection.execute(insert(table).values(**key, **values))
