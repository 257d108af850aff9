"""A site's chain of reports as every receiver follows it: nothing repeated, forked or left out.

Pure: the receiver keeps the state, in the same transaction as the report. A report takes its place
by its header alone, whether or not its content is of use, so refused content breaks no chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.report_header import ReportHeader, genesis


@dataclass(frozen=True)
class ChainState:
    """How far one receiver holds one site's chain without a gap.

    Args:
        sequence: of the newest report; 0 before the first.
        head: its digest; `genesis` before the first.
    """

    study_id: StudyId
    site_id: SiteId
    sequence: int
    head: Digest

    @classmethod
    def start(cls, study_id: StudyId, site_id: SiteId) -> Self:
        """Return the state before the first report."""
        return cls(study_id, site_id, 0, genesis(study_id, site_id))


def check_chain(
    header: ReportHeader, digest: Digest, state: ChainState, *, held: Digest | None = None
) -> ChainState:
    """Return the state after a verified report.

    Args:
        header, digest: of a report whose signature is verified.
        state: the receiver's, of the same study and site.
        held: digest of the report that the receiver holds at `header.sequence`, if any, in the
            chain or kept aside.

    Raises:
        ProtocolError: B11 another study or site; B7 this very report is held, or is below what is
            still held; B8 another report has its place, or it follows another; B9 reports before
            it are missing: keep it aside and raise the alarm.
    """
    if (header.study_id, header.site_id) != (state.study_id, state.site_id):
        raise refusal(
            "B11",
            expected=f"a report of site {state.site_id} in study {state.study_id}",
            arrived=f"one of site {header.site_id} in study {header.study_id}",
        )
    held = state.head if header.sequence == state.sequence else held
    place = f"report {header.sequence} of site {header.site_id}"
    if held == digest:
        raise refusal("B7", expected="a new report", arrived=f"{place}, already held")
    if held is not None:
        raise refusal("B8", expected=f"{place} as it is held", arrived="another with its number")
    if header.sequence <= state.sequence:
        raise refusal("B7", expected=f"report {state.sequence + 1}", arrived=place)
    if header.sequence > state.sequence + 1:
        raise refusal(
            "B9",
            expected=f"report {state.sequence + 1} first",
            arrived=place,
            todo="keep it aside; ask site and relay for what is missing",
        )
    if header.previous != state.head:
        raise refusal(
            "B8", expected=f"{place} after the one that is held", arrived="one after another"
        )
    return ChainState(state.study_id, state.site_id, header.sequence, digest)


def has_receipts(
    receipts: Iterable[Receipt], *, state: ChainState, recipients: int, required: int
) -> bool:
    """Return whether enough boards hold a site's chain up to its own head, so that it may go on.

    Args:
        receipts: verified ones.
        state: the site's own.
        recipients: number of receivers of the newest report; no more receipts are waited for.
        required: the roster's `receipts_required`.

    Raises:
        ProtocolError: B8 when a board states another head than the site's.
    """
    same_place = [
        item
        for item in receipts
        if (item.study_id, item.site_id, item.sequence)
        == (state.study_id, state.site_id, state.sequence)
    ]
    for receipt in same_place:
        if receipt.head != state.head:
            raise refusal(
                "B8",
                expected=f"receipts for report {state.sequence} as this site sent it",
                arrived=f"board {receipt.board_id} holds another",
                todo="stop sending; tell the consortium: somebody signs with this site's key",
            )
    return len({item.board_id for item in same_place}) >= min(required, recipients)
