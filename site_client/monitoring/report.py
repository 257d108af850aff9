"""Make a study's reports: which may be made, whose rows they count, and through the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.clock import Clock, utc_text
from common.errors import ApprovalError, ReleaseRefused, StudyStateError
from common.ids import StudyId
from common.privacy.patient_parts import patient_parts, share_of
from common.study.plan import StudyPlan
from common.study.report_periods import REFERENCE, parse_period, report_due_s, report_late_s
from common.study.report_tensors import ReportKind
from site_client.approvals import Approvals
from site_client.monitoring.period_rows import MonitoredRows
from site_client.monitoring.periods import DueReport, due_reports
from site_client.monitoring.promoted_models import PromotedModel, PromotedModels
from site_client.monitoring.tensors import exact_counts, score_rows
from site_client.release.release_log import LoggedReport
from site_client.release.report_noise import NoisedCounts, noised
from site_client.release.report_release import ReportReleases, ReportRequest
from site_client.sources.table import PatientTable
from site_client.training.randomness import Randomness


@dataclass(frozen=True)
class MonitoredStudy:
    """A study whose reports this site may make.

    Args:
        plan: approved, and the one that the model was promoted for.
        model: promoted.
    """

    plan: StudyPlan
    model: PromotedModel

    @property
    def study_id(self) -> StudyId:
        """The study."""
        return self.model.promotion.study_id


class SiteMonitor:
    """One site's reports.

    Args:
        approvals, models, clock: of the site.
        releases: the gate's steps for reports.
        rows: makes a reader of the site's source; a source is read once by each.
        salt: of the site's patients.
        declared_cohort_size: public.
        randomness: makes fresh streams for each report.
    """

    def __init__(
        self,
        *,
        approvals: Approvals,
        models: PromotedModels,
        releases: ReportReleases,
        rows: Callable[[], MonitoredRows],
        salt: bytes,
        declared_cohort_size: int,
        clock: Clock,
        randomness: Callable[[], Randomness] = Randomness.from_system,
    ) -> None:
        self._approvals = approvals
        self._models = models
        self._releases = releases
        self._rows = rows
        self._salt = salt
        self._declared = declared_cohort_size
        self._clock = clock
        self._randomness = randomness

    def study(self, study_id: StudyId) -> MonitoredStudy:
        """Return a study that may be reported about now.

        Raises:
            StudyStateError: no model was promoted, the plan has no reports, or the study is paused.
            ApprovalError: R6 or R7.
        """
        model = self._models.find(study_id)
        if model is None:
            raise _not_now(f"no model of {study_id} was promoted to this site", "a promotion")
        approval = self._approvals.find(model.promotion.plan_digest)
        if approval.is_withdrawn or self._clock.now_s() > approval.until_s:
            raise ApprovalError(
                f"the approval of {study_id} has ended",
                expected="an approval that holds; it covers the plan's reports",
                arrived=f"one until {utc_text(approval.until_s)}, or withdrawn",
                todo="approve the plan again, or let monitoring end",
                number="R7",
            )
        if approval.plan.monitoring is None:
            raise _not_now(f"the plan of {study_id} has no reports", "[monitoring] in the plan")
        if self._approvals.is_paused(study_id):
            raise _not_now(f"{study_id} is paused at this site", "a study that goes on here")
        return MonitoredStudy(approval.plan, model)

    def due(self, study: MonitoredStudy) -> tuple[ReportRequest, ...]:
        """Return the reports that can be made now and were not, the oldest period first."""
        return tuple(
            request
            for item in due_reports(
                study.plan,
                promoted_s=study.model.promotion.at_s,
                now_s=self._clock.now_s(),
            )
            if not self.is_settled(request := _request(study, item))
        )

    def is_settled(self, request: ReportRequest) -> bool:
        """Return whether a report was made, or was withheld for good."""
        return self._releases.find(request) is not None or self._releases.is_failed(request)

    def is_withheld(self, request: ReportRequest) -> bool:
        """Return whether a report was computed and let nothing out."""
        return self._releases.is_failed(request)

    def is_charged(self, plan: StudyPlan) -> bool:
        """Return whether all reports of a plan are charged already."""
        return self._releases.is_charged(plan)

    def asked(
        self, study: MonitoredStudy, label: str, kind: ReportKind, *, is_late_allowed: bool = False
    ) -> ReportRequest:
        """Return one report by its period's label.

        Args:
            study: of the report.
            label: of the period, or `reference`.
            kind: of the report; the reference has no other.
            is_late_allowed: make it although the board no longer waits.

        Raises:
            ProtocolError: no such period.
            StudyStateError: it cannot be made yet, or would be late.
        """
        plan, monitoring = study.plan, study.plan.monitoring
        if label == REFERENCE or monitoring is None:
            return _request(study, DueReport(ReportKind.REFERENCE, None, None))
        period, now_s = parse_period(label, monitoring.every), self._clock.now_s()
        due_s, late_s = report_due_s(plan, kind, period), report_late_s(plan, kind, period)
        if now_s < due_s:
            raise _not_now(
                f"the {kind.value} of {label} cannot be made yet",
                f"a time from {utc_text(due_s)} on",
            )
        if now_s > late_s and not is_late_allowed:
            raise _not_now(
                f"the board no longer waits for the {kind.value} of {label}",
                f"a time until {utc_text(late_s)}; or --late, for a board that agreed to it",
            )
        return _request(study, DueReport(kind, period, late_s))

    def make(self, request: ReportRequest, rows: MonitoredRows | None = None) -> LoggedReport:
        """Return a report's one content, made now or before.

        Args:
            request: that is due.
            rows: a reader that has read already.

        Raises:
            BudgetError, LedgerError, ReleaseRefused: see `ReportReleases.release`.
            DataSourceError: the data do not fit the plan; nothing was charged.
            ProtocolError: the promoted model is not of the plan's shape.
        """
        known = self._releases.find(request)
        if known is None and not self._releases.is_failed(request):
            self._releases.check_budget(request.plan)
            reader = rows or self._rows()
            table = self.patients(request, reader)
            reader.check_pin()
            return self._releases.release(request, produce=self._producer(request, table))
        return self._releases.release(request, produce=_never)

    def patients(self, request: ReportRequest, rows: MonitoredRows) -> PatientTable:
        """Return the rows that a report counts; they and their number stay at the site."""
        if request.period is None:
            model = self._models.find(StudyId(request.plan.study.id))
            before_s = self._clock.now_s() if model is None else model.promotion.at_s
            return rows.of_reference(request.plan, before_s=before_s)
        return rows.of_period(request.plan, request.kind, request.period)

    def new_rows(self) -> MonitoredRows:
        """Return a reader of the source as it is now."""
        return self._rows()

    def _producer(self, request: ReportRequest, table: PatientTable) -> Callable[[], NoisedCounts]:
        plan = request.plan
        model = self._models.find(StudyId(plan.study.id))
        if model is None or model.promotion.model_version != request.model_version:
            raise _not_now("the promoted model has changed meanwhile", "the model of the request")
        parameters, scaling = model.arrays(plan)
        held_out = share_of(patient_parts(plan.evaluation).held_out)

        def produce() -> NoisedCounts:
            randomness = self._randomness()
            scores = score_rows(
                table,
                plan,
                parameters,
                scaling,
                salt=self._salt,
                expected=self._declared * (held_out if request.period is None else 1),
                stream=randomness.sampling,
            )
            return noised(
                exact_counts(table, scores, plan, request.kind),
                plan,
                request.kind,
                words=randomness.noise_words,
                is_reproducible=randomness.is_reproducible,
            )

        return produce


def _request(study: MonitoredStudy, due: DueReport) -> ReportRequest:
    version = study.model.promotion.model_version
    return ReportRequest(study.plan, due.kind, due.period, version)


def _never() -> NoisedCounts:
    raise ReleaseRefused(
        "a monitoring report is computed once",
        expected="the content that was kept",
        arrived="a second computation",
        todo="report this as a fault; nothing left",
    )


def _not_now(what: str, expected: str) -> StudyStateError:
    return StudyStateError(
        what,
        expected=expected,
        arrived="another state",
        todo="look at `cohortium-site monitor status STUDY`",
    )
