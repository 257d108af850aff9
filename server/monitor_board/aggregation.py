"""What an aggregator of a secure sum checks and computes, as pure functions of bytes and records.

A share (docs/protocol.md):
  V8   its study is one whose plan the operator gave this aggregator, with mode `sum`
  V9   it is a share for this aggregator that the roster allows (B1 to B5, B12, B13)
  V10  it opens, and states the kind of its schema, the plan's noise and the newest check key
A closing:
  V11  signed by an active board of the roster (T1 to T3)
  V12  of such a study, of the kind of its schema
  V13  at least the plan's `sum_sites_min` sites, all active
  V14  made after the period's deadline, or with every active site
  V15  every named share is here, of this period, kind and model, each from the site it is named for
  V16  every site made its check tag with the closing's secret
  V17  no sum of this study, period and kind was answered for another closing (the store's part)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from common import limits
from common.crypto.keys import AnyOpeningKey
from common.errors import ProtocolError
from common.ids import BoardId, Digest, StudyId
from common.privacy.mechanism import DiscreteGaussianCounts, MechanismRecord
from common.protocol.monitoring.closing import SUM_SITE_ID, Closing
from common.protocol.monitoring.notice_checks import verify_closing
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.partial_sum import SummedShares
from common.protocol.monitoring.refusals import numbered
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_envelope import (
    open_report,
    read_report_header,
    report_digest,
)
from common.protocol.monitoring.report_header import REFERENCE, SHARE_A, SHARE_B, ReportHeader
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, Standing
from common.protocol.monitoring.share_content import ShareStatement, decode_share
from common.secure_sum.field import Elements
from common.secure_sum.shares import add_shares
from common.study.plan import StudyPlan
from common.study.report_periods import parse_period, report_late_s
from common.study.report_tensors import (
    ReportKind,
    report_mechanisms,
    report_tensors,
    schema_digest,
)

SHARE_OF_ROLE = {BoardRole.AGGREGATOR_A: SHARE_A, BoardRole.AGGREGATOR_B: SHARE_B}


@dataclass(frozen=True)
class Aggregating:
    """Who adds: one aggregator, its key and what its operator gave it.

    Args:
        aggregator_id, role: which of the two.
        opening_keys: in use and before, by fingerprint.
        roster, earlier: the newest, and versions before it.
        plans: by study.
        check_key: commitment of the newest check key; the key itself is never here.
    """

    aggregator_id: BoardId
    role: BoardRole
    opening_keys: Mapping[str, AnyOpeningKey]
    roster: MonitoringRoster
    plans: Mapping[StudyId, StudyPlan]
    check_key: Digest | None
    earlier: tuple[MonitoringRoster, ...] = ()


@dataclass(frozen=True, eq=False)
class OpenedShare:
    """One site's share after checks V8 to V10; never stored."""

    digest: Digest
    header: ReportHeader
    statement: ShareStatement
    elements: Elements


def open_share(envelope: bytes, aggregating: Aggregating, *, arrived_at_s: int) -> OpenedShare:
    """Return a share after checks V8 to V10; raises with the number of the check."""
    header = check_share(envelope, aggregating, arrived_at_s=arrived_at_s)
    plan, kind = plan_of(header, aggregating.plans)
    rosters = (aggregating.roster, *aggregating.earlier)
    named = next(item for item in rosters if item.digest == header.roster)
    key = aggregating.opening_keys.get(header.recipients[0])
    if key is None:
        raise _refuse("V10", "a share sealed to a key that is held here", "one sealed to another")
    verify_key = named.site(header.site_id).verify_key
    header, plaintext = open_report(envelope, verify_key=verify_key, opening_key=key)
    statement, elements = decode_share(plaintext, header, cells=cell_count(plan, kind))
    _check_statement(statement, plan, kind)
    if statement.check_key != aggregating.check_key:
        raise _refuse("V10", "a check tag with the newest check key", "one with another")
    return OpenedShare(report_digest(envelope), header, statement, elements)


def check_share(envelope: bytes, aggregating: Aggregating, *, arrived_at_s: int) -> ReportHeader:
    """Return a share's header after checks V8 and V9, which need no opening key."""
    plan_of(read_report_header(envelope), aggregating.plans)
    header = check_report(
        envelope,
        roster=aggregating.roster,
        arrived_at_s=arrived_at_s,
        earlier=aggregating.earlier,
    )
    expected = SHARE_OF_ROLE.get(aggregating.role)
    if header.kind != expected or len(header.recipients) != 1:
        raise _refuse("V9", f"a {expected}, sealed to one key", f"a {header.kind}, or to more")
    return header


def check_closing(data: bytes, aggregating: Aggregating, *, now_s: int) -> tuple[Closing, Digest]:
    """Return a closing and its digest after checks V11 to V14; raises with the check's number."""
    roster = aggregating.roster
    closing = verify_closing(data, roster)
    plan = summed_plan(closing.study_id, aggregating.plans, number="V12")
    if closing.schema != schema_of(plan, closing.kind):
        raise _refuse("V12", "the schema of this kind in the plan", "another schema")
    active = {site.site_id for site in roster.sites if site.status is Standing.ACTIVE}
    fewest = sites_min(plan)
    is_active = active.issuperset(closing.site_ids) and SUM_SITE_ID not in closing.site_ids
    if len(closing.sites) < fewest or not is_active:
        raise _refuse("V13", f"at least {fewest} active sites", f"{len(closing.sites)} sites")
    with numbered("V12"):  # a closing of no period of the plan is one to refuse, not a fault here
        deadline_s = deadline_of(plan, closing.kind, closing.period)
    is_over = now_s + limits.CLOCK_SKEW_S_MAX >= deadline_s
    if not is_over and active != set(closing.site_ids):
        raise _refuse("V14", "a closing after the deadline, or with every active site", "neither")
    return closing, read_notice(data).digest


def sum_shares(
    closing: Closing, shares: Mapping[Digest, OpenedShare], aggregating: Aggregating
) -> SummedShares:
    """Return the sum of exactly the shares that a closing names, after checks V15 and V16.

    Args:
        closing: checked.
        shares: opened, by the digest of their envelopes.

    Raises:
        ProtocolError: V15 or V16.
    """
    is_first = aggregating.role is BoardRole.AGGREGATOR_A
    named = [(site.site_id, site.share_a if is_first else site.share_b) for site in closing.sites]
    chosen: list[OpenedShare] = []
    for site_id, digest in named:
        share = shares.get(digest)
        if share is None:
            raise _refuse("V15", f"the share of {site_id} that the closing names", "none yet")
        if share.header.site_id != site_id or not _belongs(share, closing):
            raise _refuse("V15", f"a share of {site_id} in this sum", "one of another report")
        if share.statement.sum_key != closing.sum_key:
            raise _refuse("V16", "check tags of the closing's secret", f"another at {site_id}")
        chosen.append(share)
    return _summed(chosen)


def plan_of(
    header: ReportHeader, plans: Mapping[StudyId, StudyPlan]
) -> tuple[StudyPlan, ReportKind]:
    """Return the plan and the kind of report that a share's header is of; raises V8."""
    plan = summed_plan(header.study_id, plans, number="V8")
    for kind in ReportKind:
        if schema_of(plan, kind) == header.schema:
            return plan, kind
    raise _refuse("V8", "a schema of the plan", "another schema")


def summed_plan(study_id: StudyId, plans: Mapping[StudyId, StudyPlan], *, number: str) -> StudyPlan:
    """Return a study's plan if its reports are summed; raises `ProtocolError` with a number."""
    plan = plans.get(study_id)
    if plan is None or plan.monitoring is None or plan.monitoring.mode != "sum":
        raise _refuse(number, "a study whose plan is here, with mode sum", f"study {study_id}")
    return plan


@lru_cache(maxsize=256)
def schema_of(plan: StudyPlan, kind: ReportKind) -> Digest:
    """Return `schema_digest`, remembered: every share's check asks for it."""
    return schema_digest(plan, kind)


def sites_min(plan: StudyPlan) -> int:
    """Return the fewest sites of a sum."""
    return limits.SITES_MAX if plan.monitoring is None else plan.monitoring.sum_sites_min


def deadline_of(plan: StudyPlan, kind: ReportKind, period: str) -> int:
    """Return from when on a closing may leave out active sites, seconds since 1970.

    A reference has no calendar: there the least number of sites decides alone.
    """
    if plan.monitoring is None or period == REFERENCE:
        return 0
    return report_late_s(plan, kind, parse_period(period, plan.monitoring.every))


def cell_count(plan: StudyPlan, kind: ReportKind) -> int:
    """Return the number of cells of one kind of report."""
    return sum(tensor.cells for tensor in report_tensors(plan, kind))


def _check_statement(statement: ShareStatement, plan: StudyPlan, kind: ReportKind) -> None:
    if statement.kind is not kind:
        raise _refuse("V10", f"a share of a {kind.value} report", f"one of {statement.kind.value}")
    planned = [_without_part(record) for record in report_mechanisms(plan, kind)]
    if [_without_part(record) for record in statement.mechanisms] != planned:
        raise _refuse("V10", "the plan's noise", "another noise")
    if statement.delta != plan.privacy.delta:
        raise _refuse("V10", f"delta {plan.privacy.delta}", f"delta {statement.delta}")


def _without_part(record: MechanismRecord) -> MechanismRecord | tuple[float, int]:
    # Whom a record touches is the site's to account for: a salted hash cannot be checked here.
    if isinstance(record, DiscreteGaussianCounts):
        return record.noise_multiplier, record.cells_per_patient_max
    return record


def _belongs(share: OpenedShare, closing: Closing) -> bool:
    header = share.header
    return (
        header.study_id == closing.study_id
        and header.period == closing.period
        and header.schema == closing.schema
        and header.model_version == closing.model_version
        and share.statement.kind is closing.kind
    )


def _summed(shares: Sequence[OpenedShare]) -> SummedShares:
    statements = [share.statement for share in shares]
    return SummedShares(
        elements=add_shares([share.elements for share in shares]),
        epsilon_spent_max=max(item.epsilon_spent for item in statements),
        epsilon_remaining_min=min(item.epsilon_remaining for item in statements),
        delta=statements[0].delta,
    )


def _refuse(number: str, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a secure sum is refused",
        expected=expected,
        arrived=arrived,
        todo="see clause V in docs/protocol.md; nothing was added and nothing was published",
        number=number,
    )
