"""The decisions of each study, as a chain: each names the one before it by its digest.

Only what the relay brought is kept, the own ones too: what it refuses, for a decider was revoked
before it came there, stands in no chain, and the next decision does not build on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from common.ids import Digest, StudyId, parse_digest
from common.protocol.monitoring.notice_checks import check_decision_follows, judge_decision
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Decision
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.signed_notice import read_signed
from server.monitor_board.storage.tables import decisions


@dataclass(frozen=True)
class KeptDecision:
    """A decision that enough deciders signed.

    Args:
        digest: names its content.
        signers: the deciders' names, rising.
        notice: as signed.
        objection: why it was not valid any more when it was taken, for people; else empty.
    """

    decision: Decision
    digest: Digest
    signers: tuple[str, ...]
    notice: bytes
    taken_at_s: int
    objection: str = ""


def read_decisions(connection: Connection, study_id: StudyId) -> tuple[KeptDecision, ...]:
    """Return the decisions of a study, the first one first."""
    rows = connection.execute(
        select(decisions).where(decisions.c.study_id == study_id).order_by(decisions.c.number)
    )
    return tuple(
        _kept(row.notice, parse_digest(row.digest), row.taken_at_s, row.objection) for row in rows
    )


def take_decision(
    connection: Connection, notice: bytes, *, rosters: Sequence[MonitoringRoster], now_s: int
) -> Decision:
    """Verify a decision and keep it; the same again changes nothing.

    Args:
        rosters: all up to the one in force, which is the last.

    Raises:
        ProtocolError: T1, T2, T4, or T6 when it does not follow the one before.
        SignatureError: T4.
    """
    judged = judge_decision(notice, rosters)
    decision = judged.decision
    digest = read_signed(notice).digest
    if any(item.digest == digest for item in read_decisions(connection, decision.study_id)):
        return decision
    check_follows(connection, decision, rosters[-1].consortium)
    connection.execute(
        insert(decisions).values(
            study_id=decision.study_id,
            number=decision.number,
            digest=digest,
            notice=notice,
            taken_at_s=now_s,
            objection=judged.objection,
        )
    )
    return decision


def check_follows(connection: Connection, decision: Decision, consortium: str) -> None:
    """Refuse a decision that does not follow those that are held; raises `ProtocolError` T6."""
    held = read_decisions(connection, decision.study_id)
    check_decision_follows(
        decision,
        consortium=consortium,
        study_id=decision.study_id,
        number=len(held),
        digest=held[-1].digest if held else None,
    )


def _kept(notice: bytes, digest: Digest, taken_at_s: int, objection: str) -> KeptDecision:
    read = read_notice(notice)
    content = read.content
    if not isinstance(content, Decision):
        message = "the table of decisions holds decisions only"
        raise TypeError(message)
    signers = tuple(sorted(read.signed.signatures))
    return KeptDecision(content, digest, signers, notice, taken_at_s, objection)
