"""The ceremony of a roster: a draft that members are put into, and the authority's signature.

A draft is a roster signed by a key that is thrown away at once, so that every program can show it
and none can take it for a roster. Nothing here reads a board's store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from common.crypto.keys import HYBRID_SUITE, SigningKey, VerifyKey, parse_sealing_key
from common.errors import EnrolmentError
from common.ids import SiteId, parse_board_id, parse_site_id
from common.protocol.enrolment_records import EnrolmentRequest
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterDecider,
    RosterSite,
    Standing,
    roster_content,
    roster_genesis,
)
from common.protocol.monitoring.roster_checks import is_countersigned
from common.protocol.monitoring.roster_file import read_roster
from common.protocol.monitoring.signed_notice import NoticeKind, write_signed
from server.durable_file import write_durably
from server.monitor_board.cards import BoardCard, DeciderCard

DAY_S: Final = 86_400
_DRAFT: Final = "draft"
_ENDED: Final = (Standing.REVOKED,)
MemberT = TypeVar("MemberT", RosterSite, RosterBoard, RosterDecider)


def new_roster(
    consortium: str,
    authority: VerifyKey,
    *,
    now_s: int,
    days: int,
    grace_days: int,
    receipts_required: int = 1,
    decisions_required: int = 2,
    suites: tuple[int, ...] = (HYBRID_SUITE,),
) -> MonitoringRoster:
    """Return version 1 without members."""
    return MonitoringRoster(
        version=1,
        consortium=consortium,
        authority=authority,
        previous=roster_genesis(consortium),
        not_before_s=now_s,
        not_after_s=now_s + days * DAY_S,
        grace_s=grace_days * DAY_S,
        suites=suites,
        sites=(),
        boards=(),
        deciders=(),
        receipts_required=receipts_required,
        decisions_required=decisions_required,
    )


def following_roster(
    before: MonitoringRoster, *, now_s: int, days: int, suites: tuple[int, ...] = ()
) -> MonitoringRoster:
    """Return the version after another, in force from now, with the same members.

    Args:
        suites: other ones than before; empty: the same.
    """
    return replace(
        before,
        version=before.version + 1,
        previous=before.digest,
        not_before_s=now_s,
        not_after_s=now_s + days * DAY_S,
        suites=suites or before.suites,
        # A countersignature speaks for one step; the next version does not repeat it.
        sites=tuple(replace(site, countersignature=None) for site in before.sites),
    )


def check_deciders(roster: MonitoringRoster) -> None:
    """Refuse a draft under which no decision could ever count; raises `EnrolmentError`."""
    active = len(roster.active_deciders())
    if active < roster.decisions_required:
        raise EnrolmentError(
            "a roster with too few deciders is not signed",
            expected=f"at least {roster.decisions_required} active deciders, as it asks for itself",
            arrived=str(active),
            todo="add them with `roster add-decider`: the board could decide nothing",
        )


def write_draft(path: Path, roster: MonitoringRoster) -> None:
    """Write a draft; raises `StoreError`, or `ProtocolError` for what no roster can hold."""
    nobody = SigningKey.generate()
    data = write_signed(NoticeKind.ROSTER, roster_content(roster), {_DRAFT: nobody})
    write_durably(path, data)


def read_file(path: Path) -> MonitoringRoster:
    """Return a draft or a signed roster, nothing verified.

    Raises:
        EnrolmentError: the file cannot be read.
        ProtocolError: it holds no roster.
    """
    return read_roster(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; raises `EnrolmentError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnrolmentError(
            f"{path.name} cannot be read",
            expected=f"a readable file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="check the path and the permissions",
        ) from None


def with_site(roster: MonitoringRoster, request: EnrolmentRequest) -> MonitoringRoster:
    """Return the roster with one more site; raises `EnrolmentError` when it is there."""
    site_id = parse_site_id(request.site_id)
    if any(site.site_id == site_id for site in roster.sites):
        raise _refuse(f"a site that is not in the roster; {site_id} is", "`roster rotate`")
    key = VerifyKey.from_text(request.verify_key)
    return replace(
        roster, sites=_risen([*roster.sites, RosterSite(site_id, key, 1, Standing.ACTIVE)])
    )


def with_new_site_key(
    roster: MonitoringRoster, request: EnrolmentRequest, countersignature: bytes | None
) -> MonitoringRoster:
    """Return the roster with a site's next key.

    Args:
        request: signed by the new key.
        countersignature: of the old key over the change; None when it was revoked before.

    Raises:
        EnrolmentError: no such site, the key it has, or one that the old key did not countersign.
    """
    site_id = parse_site_id(request.site_id)
    before = roster.site(site_id)
    key = VerifyKey.from_text(request.verify_key)
    if key == before.verify_key:
        raise _refuse(f"another key than site {site_id} has", "make a new key first")
    if countersignature is None and before.status is not Standing.REVOKED:
        raise _refuse(
            f"the old key's countersignature for site {site_id}",
            "give --countersignature, or revoke the old key in a version before",
        )
    # Another key lets nobody back in: that is `roster readmit`.
    is_suspended = before.status is Standing.SUSPENDED
    standing = Standing.SUSPENDED if is_suspended else Standing.ACTIVE
    after = RosterSite(site_id, key, before.key_epoch + 1, standing, countersignature)
    if before.status is not Standing.REVOKED and not is_countersigned(
        after, old=before.verify_key, consortium=roster.consortium
    ):
        raise _refuse(
            f"a countersignature of site {site_id}'s key in the draft over this very change (O8)",
            "let the site run `change-key` again, and take over the whole text",
        )
    return replace(roster, sites=tuple(after if site is before else site for site in roster.sites))


def with_board(roster: MonitoringRoster, card: BoardCard) -> MonitoringRoster:
    """Return the roster with a board, or with a board's next opening key; the old one is retired.

    Raises:
        EnrolmentError: the key is there already or of a suite that the roster does not allow, or
            the board's signing key is another.
    """
    key = parse_sealing_key(card.suite, card.sealing_key)
    if card.suite not in roster.suites:
        raise _refuse(
            f"a key of suite {' or '.join(map(str, roster.suites))}, as the draft allows",
            "begin the draft with `--suite`, or let the board make another key",
        )
    signer = VerifyKey.from_text(card.verify_key)
    added = RosterBoard(
        parse_board_id(card.board_id), BoardRole(card.role), key, signer, Standing.ACTIVE
    )
    kept = []
    for board in roster.boards:
        if board.sealing_key == key:
            raise _refuse(f"a key that is not in the roster; {board.board_id} has it", "nothing")
        if board.board_id == added.board_id and board.status is Standing.ACTIVE:
            if board.verify_key != signer:
                raise _refuse(
                    f"the signing key of board {board.board_id} as it is in the roster",
                    "revoke the board, and add it under another id",
                )
            kept.append(replace(board, status=Standing.RETIRED))
        else:
            kept.append(board)
    return replace(roster, boards=_risen([*kept, added]))


def with_decider(roster: MonitoringRoster, card: DeciderCard) -> MonitoringRoster:
    """Return the roster with one more decider; raises `EnrolmentError` when the name is there."""
    name = parse_board_id(card.name)
    if any(person.name == name for person in roster.deciders):
        raise _refuse(f"a name that is not in the roster; {name} is", "choose another name")
    added = RosterDecider(name, VerifyKey.from_text(card.verify_key), Standing.ACTIVE)
    return replace(roster, deciders=_risen([*roster.deciders, added]))


def with_standing(roster: MonitoringRoster, member: str, standing: Standing) -> MonitoringRoster:
    """Return the roster in which a site, board or decider is active, suspended or revoked.

    Args:
        member: `site/ID`, `board/ID` or `decider/NAME`; of a board every key.

    Raises:
        EnrolmentError: no such member, or a revoked one.
    """
    kind, _, name = member.partition("/")
    if kind == "site":
        return replace(roster, sites=_changed(roster.sites, SiteId(name), standing))
    if kind == "board" and standing is not Standing.SUSPENDED:
        return replace(roster, boards=_changed(roster.boards, name, standing))
    if kind == "decider" and standing is not Standing.SUSPENDED:
        return replace(roster, deciders=_changed(roster.deciders, name, standing))
    raise _refuse("site/ID, board/ID or decider/NAME; only a site can be suspended", "name it so")


def _changed(members: Sequence[MemberT], name: str, standing: Standing) -> tuple[MemberT, ...]:
    found = [member for member in members if _name(member) == name]
    if not found:
        raise _refuse(f"a member of the roster; {name!r} is none", "look at `roster show`")
    if standing is Standing.ACTIVE and any(member.status in _ENDED for member in found):
        raise _refuse(f"{name} with a new key", "a revoked key never counts again")
    return tuple(
        replace(member, status=standing) if _name(member) == name else member for member in members
    )


def _name(member: RosterSite | RosterBoard | RosterDecider) -> str:
    if isinstance(member, RosterSite):
        return member.site_id
    return member.board_id if isinstance(member, RosterBoard) else member.name


def _risen(members: Sequence[MemberT]) -> tuple[MemberT, ...]:
    def place(member: MemberT) -> tuple[str, str]:
        last = member.sealing_key.fingerprint if isinstance(member, RosterBoard) else ""
        return _name(member), last

    return tuple(sorted(members, key=place))


def _refuse(expected: str, todo: str) -> EnrolmentError:
    return EnrolmentError(
        "a change of the roster is refused", expected=expected, arrived="another", todo=todo
    )
