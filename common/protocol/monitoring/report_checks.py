"""Whether a report is one that the roster allows: what relay, board and aggregators check alike.

After the bytes (B1, B13): (1) the roster knows the site (B2), which is active (B12); (2) the report
names a roster in force or within its grace (B3); (3) key epoch and signature are the site's (B2),
of a key that was not revoked (B12);
(4) the suite is allowed (B4); (5) the receivers are those of the roster (B5).
"""

from __future__ import annotations

from collections.abc import Sequence

from common.crypto.keys import VerifyKey
from common.ids import Digest
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.report_envelope import verify_report_by
from common.protocol.monitoring.report_header import ReportHeader
from common.protocol.monitoring.roster import MonitoringRoster, RosterSite, Standing
from common.protocol.monitoring.roster_checks import is_countersigned


def check_report(
    envelope: bytes,
    *,
    roster: MonitoringRoster,
    arrived_at_s: int,
    earlier: Sequence[MonitoringRoster] = (),
) -> ReportHeader:
    """Return the header of a report that the roster allows; needs no opening key.

    Args:
        envelope: as it arrived.
        roster: the newest that the reader took.
        arrived_at_s: when the relay received it: the relay's clock, or what the relay says.
        earlier: versions before, of which those in their grace still count.

    Raises:
        ProtocolError: B1, B2 (unknown site), B3, B4, B5, B12, B13.
        SignatureError: B2.
    """
    named = roster

    def signers_key(header: ReportHeader) -> VerifyKey:
        nonlocal named
        site = roster.site(header.site_id)
        if site.status is not Standing.ACTIVE:
            raise refusal("B12", expected="an active site", arrived=f"a {site.status.value} one")
        named = _named_roster(header.roster, roster, arrived_at_s, earlier)
        signer = named.site(header.site_id)
        _check_key(header, signer, newest=site, consortium=roster.consortium)
        return signer.verify_key

    header = verify_report_by(envelope, signers_key)
    for allowed in (roster.suites, named.suites):
        if header.suite not in allowed:
            raise refusal("B4", expected=f"suites {allowed}", arrived=f"suite {header.suite}")
    receivers = sorted(board.sealing_key.fingerprint for board in named.recipients(header.kind))
    if list(header.recipients) != receivers:
        raise refusal(
            "B5",
            expected=f"all {len(receivers)} receivers of roster version {named.version}",
            arrived=f"{len(header.recipients)} receivers, or others",
        )
    return header


def _check_key(
    header: ReportHeader, signer: RosterSite, *, newest: RosterSite, consortium: str
) -> None:
    if header.key_epoch != signer.key_epoch:
        raise refusal("B2", expected=f"key epoch {signer.key_epoch}", arrived=f"{header.key_epoch}")
    # A key that was revoked has not countersigned its successor: a report under a roster in its
    # grace does not bring it back.
    is_same = signer.verify_key == newest.verify_key
    if not is_same and not is_countersigned(newest, old=signer.verify_key, consortium=consortium):
        raise refusal(
            "B12",
            expected=f"the site's key of epoch {newest.key_epoch}, or one that countersigned it",
            arrived=f"key epoch {header.key_epoch}",
            todo="seal the same report anew under the newest roster",
        )


def _named_roster(
    digest: Digest,
    roster: MonitoringRoster,
    arrived_at_s: int,
    earlier: Sequence[MonitoringRoster],
) -> MonitoringRoster:
    """Return the roster that a report names, when it may still name it."""
    if arrived_at_s > roster.not_after_s:
        raise refusal(
            "B3",
            expected=f"a roster in force at {arrived_at_s} (seconds since 1970)",
            arrived=f"version {roster.version}, which ended at {roster.not_after_s}",
            todo="ask the consortium's authority for a new version; then send it again",
        )
    if digest == roster.digest:
        return roster
    successors = {item.previous: item for item in (roster, *earlier)}
    for item in earlier:
        successor = successors.get(item.digest)
        if item.digest == digest and successor is not None:
            end_s = successor.not_before_s + successor.grace_s
            if arrived_at_s <= end_s:
                return item
            raise refusal(
                "B3",
                expected=f"roster version {roster.version}, since {end_s} (seconds since 1970)",
                arrived=f"version {item.version}",
                todo="seal the same report anew under the newest roster",
            )
    raise refusal(
        "B3", expected=f"roster version {roster.version}", arrived="a roster that is not held here"
    )
