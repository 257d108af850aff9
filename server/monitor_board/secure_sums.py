"""The board's part of a secure sum: close a period, then join what both aggregators answer.

Numbered as in docs/protocol.md:
  V18  each partial sum is signed by an active aggregator, one by A and one by B (T1 to T3)
  V19  both answer one closing, of this board or another active one
  V20  both open here and have the plan's number of cells
  V21  both state the same of the sites
  V22  the joined sum fits its check tag (common/secure_sum/shares.py)
  V23  no cell is larger than so many sites' could be
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.crypto.keys import AnyOpeningKey
from common.errors import ProtocolError
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.monitoring.check_key import CheckKey
from common.protocol.monitoring.closing import SUM_SITE_ID, ClosedSite, Closing
from common.protocol.monitoring.notice_checks import verify_partial_sum
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.partial_sum import PartialSum, SummedShares, open_partial_sum
from common.protocol.monitoring.refusals import numbered
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportHeader
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, Standing
from common.protocol.monitoring.share_content import sum_context
from common.secure_sum.check_tag import SumKey
from common.secure_sum.shares import CELL_MAX, join
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, report_tensors, schema_digest
from server.monitor_board.aggregation import cell_count, deadline_of, sites_min
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.statistics.noisy_counts import NoisyCounts


@dataclass(frozen=True)
class SeenShare:
    """A share's envelope as a board sees it: verified, and closed to it."""

    digest: Digest
    header: ReportHeader


@dataclass(frozen=True, eq=False)
class JoinedSum:
    """The sum over sites, all a board ever learns of their reports.

    Args:
        closing: which sites and which model.
        closing_digest: names the sum.
        counts: [cells] noised; tensor after tensor as `report_tensors(plan, kind)` says.
        epsilon_spent_max, epsilon_remaining_min, delta: over the sites.
    """

    closing: Closing
    closing_digest: Digest
    counts: npt.NDArray[np.int64]
    epsilon_spent_max: float
    epsilon_remaining_min: float
    delta: float


def acknowledged_shares(
    receipts: Iterable[Receipt], roster: MonitoringRoster
) -> dict[BoardRole, frozenset[Digest]]:
    """Return the digests of the shares that each active aggregator opened, by its receipts.

    Args:
        receipts: verified ones.
        roster: in force.
    """
    role_of = {board.board_id: board.role for board in roster.active_boards()}
    found: dict[BoardRole, set[Digest]] = {role: set() for role in BoardRole}
    for receipt in receipts:
        role = role_of.get(receipt.board_id)
        if role is not None:
            found[role].add(receipt.head)
    return {role: frozenset(digests) for role, digests in found.items()}


def make_closing(
    plan: StudyPlan,
    kind: ReportKind,
    period: str,
    *,
    shares: Sequence[SeenShare],
    acknowledged: Mapping[BoardRole, Collection[Digest]],
    roster: MonitoringRoster,
    model_version: Digest,
    check_key: CheckKey,
    board_id: BoardId,
    now_s: int,
) -> Closing | None:
    """Return the closing of a sum when it is time and there are enough sites, else None.

    A site is in it when both its shares were opened by their aggregators and follow each other in
    its chain; of a site that sent several pairs, the first. Before the deadline every active site
    must be in it. The caller publishes one closing of a sum and keeps it for good.

    Args:
        shares: all of the study that this board has verified.
        acknowledged: see `acknowledged_shares`.
        model_version: of the model in use; reports of another are left out.
        check_key: the newest.
    """
    schema = schema_digest(plan, kind)
    active = {site.site_id for site in roster.sites if site.status is Standing.ACTIVE}
    of_sum = [
        share
        for share in shares
        if (share.header.schema, share.header.period) == (schema, period)
        and share.header.model_version == model_version
        and share.header.site_id in active - {SUM_SITE_ID}
    ]
    first = [item for item in of_sum if _is_opened(item, SHARE_A, acknowledged)]
    after = {
        (item.header.site_id, item.header.previous): item.digest
        for item in of_sum
        if _is_opened(item, SHARE_B, acknowledged)
    }
    sites: dict[SiteId, ClosedSite] = {}
    for item in sorted(first, key=lambda item: item.header.sequence):
        site_id = item.header.site_id
        partner = after.get((site_id, item.digest))
        if partner is not None:
            sites.setdefault(site_id, ClosedSite(site_id, item.digest, partner))
    is_time = set(sites) == active or now_s >= deadline_of(plan, kind, period)
    if len(sites) < sites_min(plan) or not is_time:
        return None
    context = sum_context(StudyId(plan.study.id), kind, period, schema)
    return Closing(
        study_id=StudyId(plan.study.id),
        period=period,
        kind=kind,
        schema=schema,
        model_version=model_version,
        sum_key=SumKey.derive(check_key.raw, context=context).commitment,
        board_id=board_id,
        sites=tuple(sites[site_id] for site_id in sorted(sites)),
        closed_at_s=now_s,
    )


def join_partial_sums(
    closing_notice: bytes,
    answers: Sequence[bytes],
    *,
    plan: StudyPlan,
    roster: MonitoringRoster,
    opening_keys: Mapping[str, AnyOpeningKey],
    check_keys: Iterable[CheckKey],
) -> JoinedSum:
    """Return the sum from the two aggregators' notices after checks V18 to V23.

    Args:
        closing_notice: verified when it was kept.
        answers: two notices, in any order.
        opening_keys: the board's, by fingerprint.
        check_keys: that the board was given.

    Raises:
        ProtocolError, SignatureError, SealError: with the number of the check.
    """
    notice = read_notice(closing_notice)
    closing = notice.content
    if not isinstance(closing, Closing):
        raise _refuse("V19", "a closing", f"a {notice.kind.value}")
    by_role: dict[BoardRole, PartialSum] = {}
    for answer in answers:
        with numbered("V18"):
            partial = verify_partial_sum(answer, roster)
        if partial.closing != notice.digest:
            raise _refuse("V19", "an answer to this closing", "one to another")
        by_role[_role_of(partial.aggregator, roster)] = partial
    if len(answers) != 2 or set(by_role) != {BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B}:
        raise _refuse("V18", "one answer of each aggregator", f"{len(answers)} answer(s)")
    cells = cell_count(plan, closing.kind)
    first, second = (
        _open(by_role[role], opening_keys, cells)
        for role in (BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B)
    )
    if _stated(first) != _stated(second):
        raise _refuse("V21", "one statement of the sites", "two")
    counts = join(first.elements, second.elements, key=_sum_key(closing, check_keys))
    if counts.size and int(np.abs(counts).max()) > len(closing.sites) * CELL_MAX:
        raise _refuse("V23", f"cells of at most {len(closing.sites)} sites", "a larger one")
    return JoinedSum(
        closing=closing,
        closing_digest=notice.digest,
        counts=counts,
        epsilon_spent_max=first.epsilon_spent_max,
        epsilon_remaining_min=first.epsilon_remaining_min,
        delta=first.delta,
    )


def kept_sum(
    joined: JoinedSum, plan: StudyPlan, *, sequence: int, received_at_s: int
) -> KeptReport:
    """Return a sum as the report of the site `all`, whose noise is that of all its sites.

    Args:
        sequence: of this sum among the sums of the study, from 1.
        received_at_s: when the relay stored the later answer.
    """
    tensors: dict[str, NoisyCounts] = {}
    factor = math.sqrt(len(joined.closing.sites))  # variances of independent noise add
    start = 0
    for tensor in report_tensors(plan, joined.closing.kind):
        cells = joined.counts[start : start + tensor.cells].reshape(tensor.shape)
        tensors[tensor.name] = NoisyCounts(cells, tensor.noise_multiplier * factor)
        start += tensor.cells
    return KeptReport(
        study_id=joined.closing.study_id,
        site_id=SUM_SITE_ID,
        kind=joined.closing.kind,
        period=joined.closing.period,
        sequence=sequence,
        received_at_s=received_at_s,
        tensors=tensors,
        model_version=joined.closing.model_version,
        epsilon_spent=joined.epsilon_spent_max,
        epsilon_remaining=joined.epsilon_remaining_min,
        delta=joined.delta,
        digest=joined.closing_digest,
    )


def _is_opened(
    share: SeenShare, kind: str, acknowledged: Mapping[BoardRole, Collection[Digest]]
) -> bool:
    role = BoardRole.AGGREGATOR_A if kind == SHARE_A else BoardRole.AGGREGATOR_B
    return share.header.kind == kind and share.digest in acknowledged.get(role, ())


def _role_of(aggregator: BoardId, roster: MonitoringRoster) -> BoardRole:
    return next(board.role for board in roster.active_boards() if board.board_id == aggregator)


def _open(
    partial: PartialSum, opening_keys: Mapping[str, AnyOpeningKey], cells: int
) -> SummedShares:
    held = [opening_keys[name] for name, _ in partial.sealed if name in opening_keys]
    if not held:
        raise _refuse("V20", "a sum sealed to a key that is held here", "one sealed to others")
    with numbered("V20"):
        return open_partial_sum(partial, key=held[0], cells=cells)


def _stated(summed: SummedShares) -> tuple[float, float, float]:
    return summed.epsilon_spent_max, summed.epsilon_remaining_min, summed.delta


def _sum_key(closing: Closing, check_keys: Iterable[CheckKey]) -> SumKey:
    context = sum_context(closing.study_id, closing.kind, closing.period, closing.schema)
    for check_key in check_keys:
        key = SumKey.derive(check_key.raw, context=context)
        if key.commitment == closing.sum_key:
            return key
    raise _refuse("V22", "the check key that the closing was made with", "none")


def _refuse(number: str, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a secure sum is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use this sum; ask both aggregators",
        number=number,
    )
