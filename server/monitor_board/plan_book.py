"""The studies that this board watches: their plans, promoted models and declared cohorts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import Connection, delete, insert, select

from common.errors import ConfigError, StudyStateError
from common.ids import Digest, SiteId, StudyId, parse_digest, parse_site_id, parse_study_id
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.monitoring.notice_checks import check_promotion_follows
from common.protocol.monitoring.notices import Promotion
from common.study.plan import StudyPlan
from common.study.plan_file import plan_bytes, plan_digest, plan_from_bytes
from common.study.report_tensors import ReportKind, report_mechanisms, schema_digest
from server.monitor_board.kept_reports import ReportLayout, report_layout
from server.monitor_board.storage.tables import cohorts, plans, promotions

_REPORTS_A_PERIOD = 4  # the case mix and the outcome; in a secure sum each is two shares
_DEVIATIONS = 6.0
_PATIENTS_MAX = 100_000_000


@dataclass(frozen=True)
class ReportSchema:
    """What one kind of report of a plan holds: computed once, asked for with every report."""

    digest: Digest
    mechanisms: tuple[DiscreteGaussianCounts, ...]
    layout: ReportLayout


@dataclass(frozen=True)
class PlanOnBoard:
    """One study as the board knows it.

    Args:
        content: the plan's bytes.
        promotions: of its models, the first one first.
        cohorts: the most patients a site may declare, where a person told the board.
    """

    study_id: StudyId
    content: bytes
    promotions: tuple[Promotion, ...]
    cohorts: Mapping[SiteId, int]

    @property
    def plan(self) -> StudyPlan:
        """The plan."""
        return plan_from_bytes(self.content)

    def schema(self, kind: ReportKind) -> ReportSchema:
        """Return what one kind of report holds."""
        return _schema(self.content, kind)

    @property
    def models(self) -> frozenset[Digest]:
        """The model versions that sites may report about."""
        return frozenset(item.model_version for item in self.promotions)

    @property
    def reports_max(self) -> int:
        """The highest sequence number that an honest site reaches, with room for references."""
        monitoring = self.plan.monitoring
        periods = 0 if monitoring is None else monitoring.periods_max
        return _REPORTS_A_PERIOD * (periods + 1)

    def patients_max(self, site_id: SiteId, kind: ReportKind) -> float | None:
        """Return the most patients that one report can be about, or None where nobody knows.

        Only the reference is about the declared patients: those who are held out by a salted hash,
        so their number is binomial.
        """
        declared = self.cohorts.get(site_id)
        if declared is None or kind is not ReportKind.REFERENCE:
            return None
        share = self.plan.evaluation.held_out_fraction
        return share * declared + _DEVIATIONS * math.sqrt(declared * share * (1 - share))


def add_plan(connection: Connection, plan: StudyPlan, *, now_s: int) -> Digest:
    """Watch a study; the same plan again changes nothing.

    Raises:
        StudyStateError: it has no part on monitoring, or its id belongs to another plan.
    """
    study_id, digest = parse_study_id(plan.study.id), plan_digest(plan)
    if plan.monitoring is None:
        raise StudyStateError(
            f"{study_id} cannot be watched",
            expected="a plan with [monitoring]",
            arrived="one without",
            todo="add the part under a new study id, and let the sites approve it",
        )
    found = connection.execute(select(plans).where(plans.c.study_id == study_id)).one_or_none()
    if found is not None and found.plan_digest != digest:
        raise StudyStateError(
            "a study's plan never changes",
            expected=f"the plan with digest {found.plan_digest}",
            arrived=digest,
            todo="give the changed plan a new study id; sites approve it anew",
        )
    if found is None:
        connection.execute(
            insert(plans).values(
                study_id=study_id, plan_digest=digest, plan=plan_bytes(plan), added_at_s=now_s
            )
        )
    return digest


def read_cohort(text: str) -> tuple[SiteId, int]:
    """Return site and number of `SITE=PATIENTS`; raises `ConfigError`."""
    site, _, number = text.partition("=")
    if not number.isdecimal() or not 1 <= int(number) <= _PATIENTS_MAX:
        raise ConfigError(
            "a declared cohort is refused",
            expected=f"SITE=PATIENTS with 1 to {_PATIENTS_MAX} patients",
            arrived=repr(text[:80]),
            todo="ask the coordinator how many patients the site may declare",
        )
    return parse_site_id(site), int(number)


def set_cohort(
    connection: Connection, study_id: StudyId, site_id: SiteId, patients_max: int
) -> None:
    """Remember the most patients that a site may declare in a study."""
    connection.execute(
        delete(cohorts).where(cohorts.c.study_id == study_id, cohorts.c.site_id == site_id)
    )
    connection.execute(
        insert(cohorts).values(study_id=study_id, site_id=site_id, patients_max=patients_max)
    )


def take_promotion(connection: Connection, promotion: Promotion) -> None:
    """Keep a verified promotion of a study that is watched; the same again changes nothing.

    Raises:
        ProtocolError: T6 when it does not follow the one before.
        StudyStateError: it is of another plan than the study's here.
    """
    on_board = read_plans(connection).get(promotion.study_id)
    if on_board is None or promotion in on_board.promotions:
        return
    if promotion.plan_digest != plan_digest(on_board.plan):
        raise StudyStateError(
            "a promotion is of another plan",
            expected=f"plan {plan_digest(on_board.plan)[:12]}",
            arrived=promotion.plan_digest[:12],
            todo="compare the plan's digest with the coordinator",
        )
    check_promotion_follows(promotion, on_board.promotions[-1] if on_board.promotions else None)
    connection.execute(
        insert(promotions).values(
            study_id=promotion.study_id,
            sequence=promotion.sequence,
            model_version=promotion.model_version,
            plan_digest=promotion.plan_digest,
            at_s=promotion.at_s,
        )
    )


def read_plans(connection: Connection) -> dict[StudyId, PlanOnBoard]:
    """Return every study that is watched, by its id."""
    promoted: dict[str, list[Promotion]] = {}
    for row in connection.execute(select(promotions).order_by(promotions.c.sequence)):
        promoted.setdefault(row.study_id, []).append(
            Promotion(
                study_id=parse_study_id(row.study_id),
                plan_digest=parse_digest(row.plan_digest),
                model_version=parse_digest(row.model_version),
                sequence=row.sequence,
                at_s=row.at_s,
            )
        )
    declared: dict[str, dict[SiteId, int]] = {}
    for row in connection.execute(select(cohorts)):
        declared.setdefault(row.study_id, {})[parse_site_id(row.site_id)] = row.patients_max
    return {
        parse_study_id(row.study_id): PlanOnBoard(
            study_id=parse_study_id(row.study_id),
            content=row.plan,
            promotions=tuple(promoted.get(row.study_id, ())),
            cohorts=declared.get(row.study_id, {}),
        )
        for row in connection.execute(select(plans).order_by(plans.c.study_id))
    }


@lru_cache(maxsize=64)
def _schema(content: bytes, kind: ReportKind) -> ReportSchema:
    plan = plan_from_bytes(content)
    return ReportSchema(
        schema_digest(plan, kind), report_mechanisms(plan, kind), report_layout(plan, kind)
    )
