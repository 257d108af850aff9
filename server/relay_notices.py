"""Which notices the relay passes on: signed, by whom the roster says may say it.

The checks, in this order; a refused notice has the number T1 or T2:
    (1) size and form (T1)
    (2) the caller is a board or an aggregator with a key in the newest roster that is not revoked
    (3) the kind's signers, under the newest roster (T2):
        receipt, closing, partial sum    the caller, with the key of its active entry
        decision                         as many active deciders as the roster asks for
        roster, check key                the authority
        promotion                        nobody by this way: the coordinator stores its own
A reader verifies all of it again; the relay does, so that no member can fill another's mailbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.canonical import digest_bytes
from common.errors import ProtocolError, SignatureError
from common.ids import Digest
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.protocol.monitoring.signed_notice import (
    NoticeKind,
    SignedNotice,
    read_signed,
    verify_signed,
)
from server.relay_members import Member

_BY_CALLER: Final = (NoticeKind.RECEIPT, NoticeKind.CLOSING, NoticeKind.PARTIAL_SUM)


@dataclass(frozen=True)
class RelayedNotice:
    """A notice as the relay keeps it.

    Args:
        kind: what it says.
        site_id: whom it is for; empty for every member.
        digest: names it, byte for byte.
        content: the bytes that arrived.
        body: what travels beside it; the parameters of a promotion.
    """

    kind: str
    site_id: str
    digest: Digest
    content: bytes
    body: bytes


def relayed(notice: SignedNotice, content: bytes, body: bytes = b"") -> RelayedNotice:
    """Return a verified notice as it is kept: a receipt for its site, all else for everybody."""
    record = notice.record
    site_id = record.get("site_id") if isinstance(record, Mapping) else None
    is_receipt = notice.kind is NoticeKind.RECEIPT and isinstance(site_id, str)
    return RelayedNotice(
        kind=notice.kind.value,
        site_id=str(site_id) if is_receipt else "",
        digest=digest_bytes("relay-notice", content, body),
        content=content,
        body=body,
    )


def admit_notice(content: bytes, *, caller: Member, roster: MonitoringRoster) -> SignedNotice:
    """Run the checks; raises `ProtocolError` T1 or T2.

    A roster's own rules are checked where it is pinned (`server/relay_rosters.py`).
    """
    notice = read_signed(content)
    check_board(caller, roster)
    try:
        _check_signers(notice, caller, roster)
    except SignatureError as error:
        raise _refuse(error.expected, error.arrived) from None
    return notice


def check_board(caller: Member, roster: MonitoringRoster) -> None:
    """Refuse a caller that is no board or aggregator of the roster; raises `ProtocolError` T2."""
    is_known = caller.is_board and any(
        board.board_id == caller.member_id and board.status is not Standing.REVOKED
        for board in roster.boards
    )
    if not is_known:
        raise _refuse("a board or aggregator in the newest roster", caller.member_id)


def _check_signers(notice: SignedNotice, caller: Member, roster: MonitoringRoster) -> None:
    if notice.kind in _BY_CALLER:
        keys = [
            board.verify_key
            for board in roster.active_boards()
            if board.board_id == caller.member_id
        ]
        if not any(_is_signed(notice, by=caller.member_id, keys=keys)):
            raise _refuse(f"a {notice.kind.value} signed by {caller.member_id}", "another")
    elif notice.kind is NoticeKind.DECISION:
        signed = [
            person.name
            for person in roster.active_deciders()
            if _is_signed(notice, by=person.name, keys=[person.verify_key])
        ]
        if len(signed) < roster.decisions_required:
            raise _refuse(f"{roster.decisions_required} deciders' signatures", f"{len(signed)}")
    elif notice.kind is NoticeKind.PROMOTION:
        raise _refuse("a promotion by the coordinator itself", f"one from {caller.member_id}")
    else:
        verify_signed(notice, by=AUTHORITY, key=roster.authority)
