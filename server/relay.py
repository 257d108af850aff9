"""What the relay decides about a report that it cannot read: numbered checks, then a place.

The checks, in this order; each refuses with a number of the board's table:
    (1) what every receiver checks: size, shape, roster, site, key, signature, suite, receivers
        (`check_report`: B13, B1, B2, B12, B3, B4, B5)
    (2) the caller's certificate is of the site in the header (B2)
    (3) the coordinator has admitted the site (B12); one that is suspended from training reports on
    (4) the study is one that the coordinator has registered (B11)
    (5) the chain: what the store has at, before and after this place fits (B8)
    (6) the site's day has room for it in this study (B14)
The last two run inside the transaction that stores (server/relay_store.py). A gap is no refusal
here: a relay restored from a backup must not stop a site for ever; boards find gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.report_header import genesis
from common.protocol.monitoring.roster import MonitoringRoster
from server.relay_members import Member

Place: TypeAlias = tuple[StudyId, SiteId, int]
"""Study, site and sequence: one link of one chain."""


@dataclass(frozen=True)
class SealedReport:
    """A report that passed checks 1 to 4.

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


@dataclass(frozen=True)
class RelayView:
    """Who counts at this moment.

    Args:
        newest: the newest pinned roster.
        earlier: those before it whose grace is not over.
        admitted_sites: those that the coordinator has admitted, suspended from training or not.
        studies: those that the coordinator has registered.
    """

    newest: MonitoringRoster
    earlier: tuple[MonitoringRoster, ...]
    admitted_sites: frozenset[str]
    studies: frozenset[str]


def admit_report(envelope: bytes, *, caller: Member, view: RelayView, now_s: int) -> SealedReport:
    """Run checks 1 to 4.

    Args:
        envelope: the bytes that arrived.
        caller: whom the client certificate names.
        view: who counts now.
        now_s: seconds since 1970.

    Raises:
        ProtocolError: B13, B1, B2, B12, B3, B4, B5 or B11.
        SignatureError: B2.
    """
    header = check_report(envelope, roster=view.newest, arrived_at_s=now_s, earlier=view.earlier)
    if caller != Member(header.site_id, is_board=False):
        raise refusal(
            "B2",
            expected="a report of the site that the client certificate names",
            arrived=f"a report of {header.site_id}",
            todo="send reports with the certificate that their site enrolled with",
        )
    if header.site_id not in view.admitted_sites:
        raise refusal(
            "B12",
            expected="a site that the coordinator has admitted",
            arrived=f"site {header.site_id}",
            todo="ask the coordinator",
        )
    if header.study_id not in view.studies:
        raise refusal(
            "B11",
            expected="a study that the coordinator has registered",
            arrived=f"study {header.study_id}",
            todo="ask the coordinator, who registers a study when its plan is launched",
        )
    return SealedReport(
        place=(header.study_id, header.site_id, header.sequence),
        previous=header.previous,
        digest=report_digest(envelope),
        envelope=envelope,
    )


def check_chain(report: SealedReport, stored: Callable[[Place], Link | None]) -> None:
    """Run check 5: no other report has this place, and its neighbours fit; raises B8.

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
