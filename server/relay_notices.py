"""Which notices the relay passes on: signed, by whom the roster says may say it.

The checks, in this order:
    (1) size and form (T1, T2)
    (2) the caller is a board or an aggregator with a key that is not revoked (T3)
    (3) who signed it, under the newest roster (T3 to T5, O2):
        receipt, closing, partial sum    the board or aggregator that it names
        decision                         as many active deciders as the roster asks for
        promotion                        the coordinator, and it stores its own: none by this way
        everything else                  the authority
A reader verifies all of it again; the relay does, so that no member can fill another's mailbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from common.canonical import digest_bytes
from common.crypto.keys import VerifyKey
from common.errors import ProtocolError
from common.ids import Digest
from common.protocol.monitoring.notice_checks import (
    verify_closing,
    verify_decision,
    verify_partial_sum,
    verify_promotion,
    verify_receipt,
)
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.protocol.monitoring.roster_file import AUTHORITY
from common.protocol.monitoring.signed_notice import (
    NoticeKind,
    SignedNotice,
    read_signed,
    verify_signed,
)
from server.relay_members import Member

_CHECKS: Final[Mapping[NoticeKind, Callable[[bytes, MonitoringRoster], object]]] = {
    NoticeKind.RECEIPT: verify_receipt,
    NoticeKind.CLOSING: verify_closing,
    NoticeKind.PARTIAL_SUM: verify_partial_sum,
    NoticeKind.DECISION: verify_decision,
}


@dataclass(frozen=True)
class RelayedNotice:
    """A notice as the relay keeps it.

    Args:
        kind: what it says.
        site_id: whom it is for; empty for every member.
        digest: names it, byte for byte; a decision by what it says, however many signed it.
        content: the bytes that arrived.
        body: what travels beside it; the parameters of a promotion.
        sender: the board or aggregator that left it; empty: the coordinator's own machine.
    """

    kind: str
    site_id: str
    digest: Digest
    content: bytes
    body: bytes
    sender: str = ""


def relayed(
    notice: SignedNotice, content: bytes, *, body: bytes = b"", sender: str = ""
) -> RelayedNotice:
    """Return a verified notice as it is kept: a receipt for its site, all else for everybody."""
    record = notice.record
    site_id = record.get("site_id") if isinstance(record, Mapping) else None
    is_receipt = notice.kind is NoticeKind.RECEIPT and isinstance(site_id, str)
    # A decider can sign one decision again and again with other bytes: it is one decision.
    is_decision = notice.kind is NoticeKind.DECISION
    return RelayedNotice(
        kind=notice.kind.value,
        site_id=str(site_id) if is_receipt else "",
        digest=notice.digest if is_decision else digest_bytes("relay-notice", content, body),
        content=content,
        body=body,
        sender=sender,
    )


def admit_notice(
    content: bytes, body: bytes, *, caller: Member, roster: MonitoringRoster
) -> RelayedNotice:
    """Run the checks; what a roster must hold besides is checked where it is pinned.

    Raises:
        ProtocolError, SignatureError: with the number of the check.
    """
    notice = read_signed(content)
    check_board(caller, roster)
    if notice.kind is NoticeKind.PROMOTION or body:
        raise _refuse("T5", "promotions from the coordinator's own machine", "one from outside")
    check = _CHECKS.get(notice.kind)
    if check is not None:
        check(content, roster)
    else:
        verify_signed(notice, by=AUTHORITY, key=roster.authority)
    return relayed(notice, content, sender=caller.member_id)


def admit_promotion(content: bytes, parameters: bytes, *, coordinator: VerifyKey) -> RelayedNotice:
    """Return the coordinator's own promotion with the parameters that it names.

    Raises:
        ProtocolError, SignatureError: T1, T2, T5.
    """
    promotion = verify_promotion(content, coordinator)
    if promotion.model_version != digest_bytes("parameters", parameters):
        raise _refuse("T5", "the parameters that the promotion names", "others")
    return relayed(read_signed(content), content, body=parameters)


def check_board(caller: Member, roster: MonitoringRoster) -> None:
    """Refuse a caller that is no board or aggregator of the roster; raises `ProtocolError` T3."""
    is_known = caller.is_board and any(
        board.board_id == caller.member_id and board.status is not Standing.REVOKED
        for board in roster.boards
    )
    if not is_known:
        raise _refuse("T3", "a board or aggregator of the newest roster", caller.member_id)


def _refuse(number: str, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "the relay refuses a call",
        expected=expected,
        arrived=arrived,
        todo="ask the consortium's authority which members the newest roster has",
        number=number,
    )
