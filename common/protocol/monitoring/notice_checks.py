"""The numbered checks of who signed a notice.

    T1  it has the one form of a notice
    T2  it has the one form of its kind
    T3  a receipt, closing or partial sum is signed by the board or aggregator that it names; of a
        closing that is a board, of a partial sum an aggregator
    T4  a decision is signed by enough different active deciders, and by nobody else; one that only
        an earlier roster allows keeps its place among the decisions and moves nothing
    T5  a promotion is signed by the coordinator alone
    T6  a decision or promotion follows the one before
    T8  a check key is signed by the consortium's authority alone

Every check raises `ProtocolError` with its number; wrong signatures raise `SignatureError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from common import limits
from common.crypto.keys import VerifyKey
from common.errors import CohortiumError, ProtocolError, SignatureError
from common.ids import BoardId, Digest, StudyId
from common.protocol.monitoring.check_key import SealedCheckKey
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.notice_codec import Notice, read_notice
from common.protocol.monitoring.notices import (
    Decision,
    NoticeContent,
    Promotion,
    Receipt,
    decision_genesis,
)
from common.protocol.monitoring.partial_sum import PartialSum
from common.protocol.monitoring.refusals import numbered
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, Standing
from common.protocol.monitoring.roster_file import AUTHORITY
from common.protocol.monitoring.signed_notice import verify_signed

COORDINATOR: Final = "coordinator"
ContentT = TypeVar("ContentT", Receipt, Decision, Promotion, Closing, PartialSum, SealedCheckKey)


@dataclass(frozen=True)
class JudgedDecision:
    """A decision that has its place among its study's decisions.

    Args:
        objection: why nothing may be done about it, for people; empty when it is valid now.
    """

    decision: Decision
    objection: str


def verify_receipt(data: bytes, roster: MonitoringRoster) -> Receipt:
    """Return a receipt signed by an active board or aggregator (T1 to T3)."""
    notice, receipt = _read(data, Receipt)
    _check_board(notice, receipt.board_id, roster)
    return receipt


def verify_closing(data: bytes, roster: MonitoringRoster) -> Closing:
    """Return a closing signed by an active board (T1 to T3)."""
    notice, closing = _read(data, Closing)
    _check_board(notice, closing.board_id, roster, {BoardRole.BOARD})
    return closing


def verify_partial_sum(data: bytes, roster: MonitoringRoster) -> PartialSum:
    """Return a partial sum signed by an active aggregator (T1 to T3)."""
    notice, part = _read(data, PartialSum)
    _check_board(notice, part.aggregator, roster, set(BoardRole) - {BoardRole.BOARD})
    return part


def verify_check_key(data: bytes, authority: VerifyKey) -> SealedCheckKey:
    """Return a check key that the consortium's authority signed (T1, T2, T8)."""
    notice, sealed = _read(data, SealedCheckKey)
    _check_only(notice, AUTHORITY, authority, "T8")
    return sealed


def verify_decision(data: bytes, roster: MonitoringRoster) -> Decision:
    """Return a decision that enough active deciders signed (T1, T2, T4)."""
    notice, decision = _read(data, Decision)
    keys = {person.name: person.verify_key for person in roster.active_deciders()}
    signers = notice.signed.signatures
    if not set(signers) <= set(keys) or len(signers) < roster.decisions_required:
        raise _refuse(
            "T4",
            f"signatures of at least {roster.decisions_required} active deciders, and no others",
            f"{len(set(signers) & set(keys))} of active deciders, {len(set(signers) - set(keys))} "
            "others",
        )
    for name in signers:
        with numbered("T4"):
            verify_signed(notice.signed, by=name, key=keys[name])
    return decision


def judge_decision(data: bytes, rosters: Sequence[MonitoringRoster]) -> JudgedDecision:
    """Return a decision, and whether it is valid now or only under an earlier roster (T1, T2, T4).

    Without the second kind, whoever delays a decision until a decider is revoked would cut off all
    that follow it. It moves nothing, for a revoked key can sign any date: what it says is for a
    person to weigh, or for the deciders to decide anew.

    Args:
        rosters: every version that the reader verified, the oldest first; the last one counts now.

    Raises:
        ProtocolError, SignatureError: no version allows it that had not ended when it was opened;
            as the newest version refuses it.
    """
    *earlier, newest = rosters
    try:
        return JudgedDecision(verify_decision(data, newest), "")
    except CohortiumError:
        for roster in reversed(earlier):
            judged = _judge_earlier(data, roster, newest)
            if judged is not None:
                return judged
        raise


def _judge_earlier(
    data: bytes, roster: MonitoringRoster, newest: MonitoringRoster
) -> JudgedDecision | None:
    try:
        decision = verify_decision(data, roster)
    except CohortiumError:
        return None
    if decision.opened_at_s > roster.not_after_s + limits.CLOCK_SKEW_S_MAX:
        return None
    standing = {(person.name, person.verify_key): person.status for person in newest.deciders}
    keys = {person.name: person.verify_key for person in roster.active_deciders()}
    lost = [
        name
        for name in sorted(read_notice(data).signed.signatures)
        if standing.get((name, keys[name])) is not Standing.ACTIVE
    ]
    why = (
        f"whose decider {' and '.join(lost)} is revoked now"
        if lost
        else f"and roster {newest.version} asks for {newest.decisions_required} deciders"
    )
    return JudgedDecision(decision, f"signed under roster {roster.version}, {why}")


def verify_promotion(data: bytes, coordinator: VerifyKey) -> Promotion:
    """Return a promotion that the coordinator signed (T1, T2, T5)."""
    notice, promotion = _read(data, Promotion)
    _check_only(notice, COORDINATOR, coordinator, "T5")
    return promotion


def check_decision_follows(
    decision: Decision,
    *,
    consortium: str,
    study_id: StudyId,
    number: int,
    digest: Digest | None,
) -> None:
    """T6: a decision is the next of its study.

    Args:
        consortium: of the roster by which it was judged.
        number: of the newest decision that is held; 0 before the first.
        digest: of that decision's notice; None before the first.
    """
    expected = (study_id, number + 1, digest or decision_genesis(consortium, study_id))
    if (decision.study_id, decision.number, decision.previous) != expected:
        raise _refuse(
            "T6",
            f"decision {number + 1} of study {study_id}, after the one that is held",
            f"decision {decision.number} of study {decision.study_id}, or after another",
        )


def check_promotion_follows(promotion: Promotion, held: Promotion | None) -> None:
    """T6: a promotion is newer than the one that is held, of the same study and plan."""
    if held is None:
        return
    is_same = (promotion.study_id, promotion.plan_digest) == (held.study_id, held.plan_digest)
    if not is_same or promotion.sequence <= held.sequence:
        raise _refuse(
            "T6",
            f"a promotion after number {held.sequence} of the same study and plan",
            f"number {promotion.sequence}, or of another",
        )


def _read(data: bytes, content_type: type[ContentT]) -> tuple[Notice, ContentT]:
    notice = read_notice(data)
    content: NoticeContent | None = notice.content
    if not isinstance(content, content_type):
        raise _refuse("T2", f"a {content_type.__name__.lower()}", f"a {notice.kind.value}")
    return notice, content


def _check_board(
    notice: Notice,
    board_id: BoardId,
    roster: MonitoringRoster,
    roles: Collection[BoardRole] = tuple(BoardRole),
) -> None:
    for board in roster.active_boards():
        if board.board_id == board_id and board.role in roles:
            _check_only(notice, board_id, board.verify_key, "T3")
            return
    expected = " or ".join(sorted(role.value for role in roles))
    raise _refuse("T3", f"an active {expected} of the roster", f"{board_id}")


def _check_only(notice: Notice, name: str, key: VerifyKey, number: str) -> None:
    if set(notice.signed.signatures) != {name}:
        raise SignatureError(
            f"a {notice.kind.value} is refused",
            expected=f"one signature, by {name}",
            arrived="others",
            todo="do not use it; ask its sender for it again",
            number=number,
        )
    with numbered(number):
        verify_signed(notice.signed, by=name, key=key)


def _refuse(number: str, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a notice is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use it; ask its sender for it again",
        number=number,
    )
