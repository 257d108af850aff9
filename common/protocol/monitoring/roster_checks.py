"""The numbered checks of a roster.

    O1  it has the one form of a roster
    O2  it is signed by the authority that the reader trusts, and names it
    O3  members rise by id and are there once; no key belongs to two of them
    O4  every key in use is of an allowed suite, one suite for each role, and somebody can receive
    O5  it is the pinned version, or the next one of the same consortium that names it (no rollback)
    O6  no site disappears; who left is there as revoked
    O7  a site's key epoch never goes back, and the key changes exactly when it rises by one
    O8  a new key is countersigned by the old one, unless that was revoked in the version before
    O9  it is in force now

Every check raises `ProtocolError` with its number; O2 raises `SignatureError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common import limits
from common.canonical import canonical_bytes
from common.crypto.keys import HPKE_SUITES, VerifyKey
from common.crypto.signing import verify
from common.errors import ProtocolError, SignatureError
from common.ids import SiteId
from common.protocol.monitoring.refusals import numbered
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterSite,
    Standing,
    roster_genesis,
)
from common.protocol.monitoring.signed_notice import SignedNotice, verify_signed

KEY_CHANGE_LABEL: Final = "monitoring-key-change"
_AUTHORITY: Final = "authority"


def key_change(consortium: str, site_id: SiteId, key_epoch: int, new: VerifyKey) -> bytes:
    """Return the canonical record that an old key signs when a site takes a new one."""
    return canonical_bytes(
        {
            "consortium": consortium,
            "key_epoch": key_epoch,
            "site_id": site_id,
            "verify_key": new.to_text(),
            "version": 1,
        }
    )


def check_signature(notice: SignedNotice, roster: MonitoringRoster, authority: VerifyKey) -> None:
    """O2: signed by the authority that the reader trusts, and by nobody else."""
    if roster.authority != authority or set(notice.signatures) != {_AUTHORITY}:
        raise SignatureError(
            "a roster is refused",
            expected=f"a roster signed by authority {authority.fingerprint} alone",
            arrived=f"a roster of authority {roster.authority.fingerprint}",
            todo="do not use it; ask the consortium's authority which key is right",
            number="O2",
        )
    with numbered("O2"):
        verify_signed(notice, by=_AUTHORITY, key=authority)


def check_members(roster: MonitoringRoster) -> None:
    """O3 and O4."""
    check_unique(roster)
    check_suites(roster)


def check_unique(roster: MonitoringRoster) -> None:
    """O3: members rise by id and are there once; no key belongs to two of them."""
    sites = [site.site_id for site in roster.sites]
    boards = [(board.board_id, board.sealing_key.fingerprint) for board in roster.boards]
    people = [person.name for person in roster.deciders]
    active = [board.board_id for board in roster.active_boards()]
    for ids in (sites, boards, people):
        if not _rises(ids):
            raise refuse("O3", "members rising by id, each once", "a repeated or misplaced member")
    if len(set(active)) != len(active):
        raise refuse("O3", "one active sealing key for each board", "a board with several")
    sealing = [board.sealing_key.fingerprint for board in roster.boards]
    holders = {
        (key.raw, holder)
        for key, holder in (
            (roster.authority, "the authority"),
            *((site.verify_key, f"site {site.site_id}") for site in roster.sites),
            *((board.verify_key, f"board {board.board_id}") for board in roster.boards),
            *((person.verify_key, f"decider {person.name}") for person in roster.deciders),
        )
    }
    if len(set(sealing)) != len(sealing) or len({raw for raw, _ in holders}) != len(holders):
        raise refuse("O3", "each key with one holder", "one key with two holders")


def check_suites(roster: MonitoringRoster) -> None:
    """O4: every key in use is of an allowed suite, one for each role, and somebody can receive."""
    if not roster.suites or not _rises(roster.suites) or not set(roster.suites) <= set(HPKE_SUITES):
        raise refuse("O4", f"suites among {sorted(HPKE_SUITES)}, rising", "others")
    for role in BoardRole:
        used = {board.sealing_key.suite for board in roster.active_boards() if board.role is role}
        if len(used) > 1 or not used <= set(roster.suites):
            raise refuse(
                "O4", f"one allowed suite for all keys of role {role.value}", f"suites {used}"
            )
    boards = [board for board in roster.active_boards() if board.role is BoardRole.BOARD]
    if not boards or roster.receipts_required > len(boards):
        raise refuse("O4", "as many boards in use as receipts are required", f"{len(boards)}")
    if len(roster.active_boards()) > limits.REPORT_RECIPIENTS_MAX:
        raise refuse("O4", f"at most {limits.REPORT_RECIPIENTS_MAX} keys in use", "more")
    if roster.version == 1 and roster.previous != roster_genesis(roster.consortium):
        raise refuse("O4", "a first version that follows nothing", "one that names another")


def check_follows(roster: MonitoringRoster, pinned: MonitoringRoster) -> None:
    """O5 to O8, against the newest roster that the reader took."""
    if roster == pinned:
        return
    if roster.version <= pinned.version:
        raise refuse(
            "O5",
            f"version {pinned.version + 1}, or version {pinned.version} as it was taken",
            f"version {roster.version}: a rollback, or another roster of the same version",
        )
    if (roster.version, roster.previous, roster.consortium) != (
        pinned.version + 1,
        pinned.digest,
        pinned.consortium,
    ):
        raise refuse(
            "O5",
            f"version {pinned.version + 1} of the same consortium, which names version "
            f"{pinned.version} by its digest",
            f"version {roster.version}, or one that follows another roster",
            todo="ask for every version in between; if there is none, ask the authority",
        )
    after = {site.site_id: site for site in roster.sites}
    for before in pinned.sites:
        if before.site_id not in after:
            raise refuse("O6", f"site {before.site_id}, revoked if it left", "no such site")
        _check_key(before, after[before.site_id], roster.consortium)


def check_in_force(roster: MonitoringRoster, now_s: int) -> None:
    """O9: now is between its two times, give or take the clocks' difference at the beginning."""
    if not roster.not_before_s - limits.CLOCK_SKEW_S_MAX <= now_s <= roster.not_after_s:
        raise refuse(
            "O9",
            f"now between {roster.not_before_s} and {roster.not_after_s} (seconds since 1970)",
            f"{now_s}",
            todo="check the clock; ask the consortium's authority for a new version",
        )


def is_countersigned(site: RosterSite, *, old: VerifyKey, consortium: str) -> bool:
    """Return whether the holder of a site's old key said that this key is the next."""
    change = key_change(consortium, site.site_id, site.key_epoch, site.verify_key)
    try:
        verify(old, KEY_CHANGE_LABEL, site.countersignature or b"", change)
    except SignatureError:
        return False
    return True


def _check_key(before: RosterSite, after: RosterSite, consortium: str) -> None:
    steps = after.key_epoch - before.key_epoch
    has_changed = after.verify_key != before.verify_key
    if steps not in (0, 1) or has_changed != (steps == 1):
        raise refuse(
            "O7",
            f"site {before.site_id} with its key of epoch {before.key_epoch}, or a new key of "
            f"epoch {before.key_epoch + 1}",
            f"epoch {after.key_epoch}, {'a new' if has_changed else 'the same'} key",
        )
    if not has_changed:
        if before.status is Standing.REVOKED and after.status is not Standing.REVOKED:
            raise refuse("O8", f"another key for revoked site {before.site_id}", "the revoked key")
        return
    if before.status is Standing.REVOKED:
        return
    if not is_countersigned(after, old=before.verify_key, consortium=consortium):
        raise refuse(
            "O8",
            f"site {before.site_id}'s new key countersigned by its old one",
            "a new key without that",
            todo="let the site sign the change; if its old key is lost, revoke it first",
        )


def _rises(values: Sequence[object]) -> bool:
    return list(values) == sorted(set(values))  # type: ignore[type-var]


def refuse(
    number: str,
    expected: str,
    arrived: str,
    *,
    todo: str = "do not use it; ask the consortium's authority for the newest version",
) -> ProtocolError:
    """Return the error of a roster's numbered check."""
    return ProtocolError(
        "a roster is refused", expected=expected, arrived=arrived, todo=todo, number=number
    )
