"""Sign rosters, and take a new one only when all its checks hold (docs/protocol.md, section O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common import limits
from common.crypto.keys import SigningKey, VerifyKey, parse_sealing_key
from common.crypto.signing import sign
from common.errors import CohortiumError, ProtocolError
from common.ids import SiteId, parse_board_id, parse_digest, parse_site_id
from common.protocol.fields import Fields
from common.protocol.monitoring import roster_checks
from common.protocol.monitoring.report_header import NUMBER_MAX
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterDecider,
    RosterSite,
    Standing,
    roster_content,
)
from common.protocol.monitoring.signed_notice import (
    NoticeKind,
    SignedNotice,
    content_fields,
    read_base64,
    read_signed,
    write_signed,
)

AUTHORITY: Final = "authority"
_SITE: Final = (Standing.ACTIVE, Standing.SUSPENDED, Standing.REVOKED)
_BOARD: Final = (Standing.ACTIVE, Standing.RETIRED, Standing.REVOKED)
_DECIDER: Final = (Standing.ACTIVE, Standing.REVOKED)


def sign_roster(roster: MonitoringRoster, key: SigningKey) -> bytes:
    """Return the bytes of a roster signed by its authority.

    Raises:
        ProtocolError: it is one that no reader would take.
    """
    data = write_signed(NoticeKind.ROSTER, roster_content(roster), {AUTHORITY: key})
    notice = read_signed(data)
    written = _parse(notice)
    roster_checks.check_signature(notice, written, key.verify_key)
    roster_checks.check_members(written)
    return data


def sign_key_change(
    old: SigningKey, *, consortium: str, site_id: SiteId, key_epoch: int, new: VerifyKey
) -> bytes:
    """Return the old key's word that a site's next key is the site's (O8).

    Args:
        old: the site's key of the epoch before.
        key_epoch: of the new key.
    """
    change = roster_checks.key_change(consortium, site_id, key_epoch, new)
    return sign(old, roster_checks.KEY_CHANGE_LABEL, change)


def read_roster(data: bytes) -> MonitoringRoster:
    """Return a roster in its one form, nothing verified; raises `ProtocolError` T1 or O1."""
    return _parse(read_signed(data))


def verify_roster(
    data: bytes, *, authority: VerifyKey, now_s: int, pinned: MonitoringRoster | None
) -> MonitoringRoster:
    """Return the roster that these bytes are, after O1 to O9.

    Args:
        data: a signed roster.
        authority: the key that the reader trusts, compared by people once.
        now_s: the reader's clock, seconds since 1970.
        pinned: the newest roster that the reader took; None only before the first.

    Raises:
        ProtocolError: with the number of the check that failed.
        SignatureError: O2.
    """
    return verify_roster_chain([data], authority=authority, now_s=now_s, pinned=pinned)


def verify_roster_chain(
    versions: Sequence[bytes],
    *,
    authority: VerifyKey,
    now_s: int,
    pinned: MonitoringRoster | None,
) -> MonitoringRoster:
    """Return the last of several versions that follow each other and the pinned one.

    For a reader who missed some: only the last must be in force now. Raises as `verify_roster`.
    """
    if not versions:
        raise _refuse("at least one version", "none")
    for data in versions:
        notice = read_signed(data)
        roster = _parse(notice)
        roster_checks.check_signature(notice, roster, authority)
        roster_checks.check_members(roster)
        if pinned is not None:
            roster_checks.check_follows(roster, pinned)
        pinned = roster
    roster_checks.check_in_force(roster, now_s)
    return roster


def _parse(notice: SignedNotice) -> MonitoringRoster:
    if notice.kind is not NoticeKind.ROSTER:
        raise _refuse("a roster", f"a {notice.kind.value}")
    try:
        return _read(content_fields(notice))
    except CohortiumError as error:
        raise _refuse(error.expected, error.arrived) from None


def _read(fields: Fields) -> MonitoringRoster:
    suites = fields.items("suites", count_max=8)
    consortium = fields.text("consortium", length_max=200)
    if not consortium or not consortium.isprintable():
        raise fields.refuse("consortium", "printable characters on one line")
    roster = MonitoringRoster(
        version=fields.integer("roster_version", minimum=1, maximum=NUMBER_MAX),
        consortium=consortium,
        authority=VerifyKey.from_text(fields.text("authority", length_max=100)),
        previous=parse_digest(fields.text("previous")),
        not_before_s=fields.integer("not_before_s", minimum=0, maximum=NUMBER_MAX),
        not_after_s=fields.integer("not_after_s", minimum=0, maximum=NUMBER_MAX),
        grace_s=fields.integer("grace_s", minimum=0, maximum=limits.ROSTER_GRACE_S_MAX),
        suites=tuple(
            Fields({"suite": suite}, "roster").integer("suite", minimum=1, maximum=255)
            for suite in suites
        ),
        sites=tuple(
            _site(Fields(item, "roster site"))
            for item in fields.items("sites", count_max=limits.SITES_MAX)
        ),
        boards=tuple(
            _board(Fields(item, "roster board"))
            for item in fields.items("boards", count_max=limits.ROSTER_BOARDS_MAX)
        ),
        deciders=tuple(
            _decider(Fields(item, "roster decider"))
            for item in fields.items("deciders", count_max=limits.DECIDERS_MAX)
        ),
        receipts_required=fields.integer(
            "receipts_required", minimum=1, maximum=limits.REPORT_RECIPIENTS_MAX
        ),
        decisions_required=fields.integer("decisions_required", minimum=2, maximum=16),
    )
    fields.close()
    return roster


def _site(fields: Fields) -> RosterSite:
    site = RosterSite(
        site_id=parse_site_id(fields.text("site_id")),
        verify_key=_verify_key(fields),
        key_epoch=fields.integer("key_epoch", minimum=1, maximum=NUMBER_MAX),
        status=_standing(fields, _SITE),
        countersignature=None
        if fields.consume_null("countersignature")
        else read_base64(fields, "countersignature", bytes_max=64),
    )
    fields.close()
    return site


def _board(fields: Fields) -> RosterBoard:
    board = RosterBoard(
        board_id=parse_board_id(fields.text("board_id")),
        role=BoardRole(fields.one_of("role", [role.value for role in BoardRole])),
        sealing_key=parse_sealing_key(
            fields.integer("suite", minimum=1, maximum=255), fields.text("sealing_key")
        ),
        verify_key=_verify_key(fields),
        status=_standing(fields, _BOARD),
    )
    fields.close()
    return board


def _decider(fields: Fields) -> RosterDecider:
    person = RosterDecider(
        name=parse_board_id(fields.text("name")),
        verify_key=_verify_key(fields),
        status=_standing(fields, _DECIDER),
    )
    fields.close()
    return person


def _verify_key(fields: Fields) -> VerifyKey:
    return VerifyKey.from_text(fields.text("verify_key", length_max=100))


def _standing(fields: Fields, allowed: Sequence[Standing]) -> Standing:
    return Standing(fields.one_of("status", [item.value for item in allowed]))


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return roster_checks.refuse("O1", expected, arrived)
