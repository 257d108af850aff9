"""The decisions of each study, as a chain: each names the one before it by its digest."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from common.ids import Digest, StudyId, parse_digest
from common.protocol.monitoring.notice_checks import check_decision_follows, verify_decision
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
    """

    decision: Decision
    digest: Digest
    signers: tuple[str, ...]
    notice: bytes
    taken_at_s: int


def read_decisions(connection: Connection, study_id: StudyId) -> tuple[KeptDecision, ...]:
    """Return the decisions of a study, the first one first."""
    rows = connection.execute(
        select(decisions).where(decisions.c.study_id == study_id).order_by(decisions.c.number)
    )
    return tuple(_kept(row.notice, parse_digest(row.digest), row.taken_at_s) for row in rows)


def take_decision(
    connection: Connection, notice: bytes, *, roster: MonitoringRoster, now_s: int
) -> Decision:
    """Verify a decision and keep it; the same again changes nothing.

    Raises:
        ProtocolError: T1, T2, T4, or T6 when it does not follow the one before.
        SignatureError: T4.
    """
    decision = verify_decision(notice, roster)
    digest = read_signed(notice).digest
    held = read_decisions(connection, decision.study_id)
    if any(item.digest == digest for item in held):
        return decision
    check_decision_follows(
        decision,
        study_id=decision.study_id,
        number=len(held),
        digest=held[-1].digest if held else None,
    )
    connection.execute(
        insert(decisions).values(
            study_id=decision.study_id,
            number=decision.number,
            digest=digest,
            notice=notice,
            taken_at_s=now_s,
        )
    )
    return decision


def _kept(notice: bytes, digest: Digest, taken_at_s: int) -> KeptDecision:
    read = read_notice(notice)
    content = read.content
    if not isinstance(content, Decision):
        message = "the table of decisions holds decisions only"
        raise TypeError(message)
    return KeptDecision(content, digest, tuple(sorted(read.signed.signatures)), notice, taken_at_s)
