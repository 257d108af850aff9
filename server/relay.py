"""What the relay decides about a report that it cannot read: numbered checks, then a place.

The checks, in this order; each refuses with a number of the board's table:
    (1) the size (B13), (2) the shape, the header's fields and a known suite (B1, B4)
    (3) the caller is the site in the header (B2)
    (4) the roster that the header names is in force, or in its grace (B3)
    (5) that roster has the site with this key's epoch (B2)
    (6) the site is active in the newest roster and at the coordinator (B12)
    (7) the roster that counts allows the suite (B4)
    (8) the site's signature over all bytes (B2)
    (9) the chain: what the store has at, before and after this place fits (B8)
The ninth runs inside the transaction that stores (server/relay_store.py). A gap is no refusal: only
a board knows what it has, and a relay restored from a backup must not stop a site for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.report_envelope import (
    read_report_header,
    report_digest,
    verify_report,
)
from common.protocol.monitoring.report_header import ReportHeader, genesis
from common.protocol.monitoring.roster import MonitoringRoster, RosterSite, Standing
from server.relay_members import Member

Place: TypeAlias = tuple[StudyId, SiteId, int]
"""Study, site and sequence: one link of one chain."""


@dataclass(frozen=True)
class SealedReport:
    """A report that passed checks 1 to 8.

    Args:
        place: where it stands in its site's chain.
        previous: what its header names as the one before it.
        digest: names it, byte for byte.
        envelope: the bytes that arrived.
    """

    place: Place
    previous: Digest
    digest: Digest
    envelope: bytes


@dataclass(frozen=True)
class Link:
    """A stored report's place in a chain: its digest, and what it names as the one before it."""

    digest: Digest
    previous: Digest


class RostersInForce:
    """The newest pinned roster, those before it that are still in grace, and their sites by id.

    Args:
        rosters: every pinned roster, the newest first.
        now_s: seconds since 1970.
    """

    def __init__(self, rosters: tuple[MonitoringRoster, ...], *, now_s: int) -> None:
        self.newest = rosters[0]
        self._sites: dict[Digest, Mapping[SiteId, RosterSite]] = {}
        self._last_s: dict[Digest, int] = {}
        last_s = self.newest.not_after_s
        for roster in rosters:
            if last_s < now_s:
                break
            self._sites[roster.digest] = {site.site_id: site for site in roster.sites}
            self._last_s[roster.digest] = last_s
            last_s = min(roster.not_before_s + roster.grace_s, last_s)
        self._newest_sites = self._sites.get(self.newest.digest, {})

    def site(self, header: ReportHeader, *, now_s: int) -> RosterSite:
        """Return the site as the header's roster has it: checks 4 and 5; raises `ProtocolError`."""
        found = self._sites.get(header.roster)
        if found is None or not now_s <= self._last_s[header.roster]:
            raise refusal(
                "B3",
                expected=f"roster version {self.newest.version}, or one before it in its grace",
                arrived="another roster, or one whose time is over",
                todo="take the newest roster from the relay, and seal the next report under it",
            )
        site = found.get(header.site_id)
        if site is None or site.key_epoch != header.key_epoch:
            raise refusal(
                "B2",
                expected="a site and key epoch that are in the roster",
                arrived=f"epoch {header.key_epoch} of site {header.site_id}",
                todo="ask the consortium's authority for a roster with this key",
            )
        return site

    def check_active(self, site: RosterSite) -> None:
        """Check the site in the newest roster; raises `ProtocolError` B12.

        A key that was replaced without its own countersignature was lost: nothing more counts
        that it signed, whatever grace the roster before has.
        """
        newest = self._newest_sites.get(site.site_id)
        is_replaced = newest is not None and newest.key_epoch != site.key_epoch
        if (
            newest is None
            or newest.status is not Standing.ACTIVE
            or (is_replaced and newest.countersignature is None)
        ):
            raise refusal(
                "B12",
                expected="a site and a key that are active in the newest roster",
                arrived=f"site {site.site_id}",
                todo="ask the consortium's authority",
            )


def admit_report(
    envelope: bytes,
    *,
    caller: Member,
    rosters: RostersInForce,
    active_sites: frozenset[str],
    now_s: int,
) -> SealedReport:
    """Run checks 1 to 8.

    Args:
        envelope: the bytes that arrived.
        caller: whom the client certificate names.
        rosters: pinned here.
        active_sites: those that the coordinator has not suspended.
        now_s: seconds since 1970.

    Raises:
        ProtocolError: B13, B1, B4, B2, B3 or B12.
        SignatureError: B2.
    """
    header = read_report_header(envelope)
    if caller != Member(header.site_id, is_board=False):
        raise refusal(
            "B2",
            expected="a report of the site that the client certificate names",
            arrived=f"a report of {header.site_id}",
            todo="send reports with the certificate that their site enrolled with",
        )
    site = rosters.site(header, now_s=now_s)
    rosters.check_active(site)
    if header.site_id not in active_sites:
        raise refusal(
            "B12",
            expected="a site that the coordinator has admitted and not suspended",
            arrived=f"site {header.site_id}",
            todo="ask the coordinator",
        )
    if header.suite not in rosters.newest.suites:
        raise refusal(
            "B4",
            expected=f"one of the suites {rosters.newest.suites}",
            arrived=f"suite {header.suite}",
            todo="take the newest roster from the relay",
        )
    verify_report(envelope, verify_key=site.verify_key)
    return SealedReport(
        place=(header.study_id, header.site_id, header.sequence),
        previous=header.previous,
        digest=report_digest(envelope),
        envelope=envelope,
    )


def check_chain(report: SealedReport, stored: Callable[[Place], Link | None]) -> None:
    """Run check 9: no other report has this place, and its neighbours fit; raises B8.

    Args:
        report: not stored yet.
        stored: what the store has at a place.
    """
    study_id, site_id, sequence = report.place
    before, after = (stored((study_id, site_id, sequence + step)) for step in (-1, 1))
    expected_previous = before.digest if before is not None else None
    if sequence == 1:
        expected_previous = genesis(study_id, site_id)
    is_fork = (
        stored(report.place) is not None
        or expected_previous not in (None, report.previous)
        or (after is not None and after.previous != report.digest)
    )
    if is_fork:
        raise refusal(
            "B8",
            expected="the report that fits its neighbours in the site's chain",
            arrived=f"another one for place {sequence} of site {site_id}",
            todo="restore nothing by hand: the site and the board compare their chains",
        )
