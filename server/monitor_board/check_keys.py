"""The authority's ceremony of a check key: a new one, sealed to each active site and board."""

from __future__ import annotations

from collections.abc import Sequence

from common.crypto.keys import AnySealingKey, SealingKey, SigningKey
from common.errors import EnrolmentError
from common.protocol.enrolment_records import EnrolmentRequest
from common.protocol.monitoring.check_key import CheckKey, seal_check_key
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, Standing
from common.protocol.monitoring.roster_file import AUTHORITY


def make_check_key(
    number: int,
    roster: MonitoringRoster,
    requests: Sequence[EnrolmentRequest],
    *,
    authority: SigningKey,
) -> bytes:
    """Return the signed notice with a new check key.

    Args:
        number: 1, 2, ...; one more than the last one's.
        roster: whose active sites and boards get it.
        requests: each site's, signed by itself; they have the sealing keys.

    Raises:
        EnrolmentError: a site has no request by its key in the roster, or an aggregator would be
            able to open.
    """
    by_key = {request.verify_key: request for request in requests}
    members: list[AnySealingKey] = []
    for site in roster.sites:
        if site.status is not Standing.ACTIVE:
            continue
        request = by_key.get(site.verify_key.to_text())
        if request is None or request.site_id != site.site_id:
            raise _refuse(f"the request of {site.site_id}, signed with its key in the roster")
        members.append(SealingKey.from_text(request.sealing_key))
    boards = [board for board in roster.active_boards() if board.role is BoardRole.BOARD]
    members.extend(board.sealing_key for board in boards)
    names = {member.fingerprint for member in members}
    if any(
        board.sealing_key.fingerprint in names
        for board in roster.boards
        if board.role is not BoardRole.BOARD
    ):
        raise _refuse("members of whom none is an aggregator")
    sealed = seal_check_key(CheckKey.generate(number), members=members)
    return sign_notice(sealed, {AUTHORITY: authority})


def _refuse(expected: str) -> EnrolmentError:
    return EnrolmentError(
        "a check key is not made",
        expected=expected,
        arrived="something else",
        todo="give the enrolment request file of every active site in the roster",
    )
