"""A monitoring report on its way out: the steps of the gate before it is sealed.

    (1) already released?       the cached content: one noise draw for each kind and period, ever
    (2) commit, then reserve    to the study's monitoring account, fsync each
    (3) compute                 exact counts, then fresh noise
    (4) check                   G1, G2, G9, G10
    (5) log                     content and entry in one transaction, fsync; then the ledger

Step (6), seal and sign, is `Gate.seal_report`: it takes logged contents only. The crash rule is the
gate's: the budget is on disk before the noise, the content before it may leave; an interrupted
reservation is completed by a fresh computation, because nothing of the first one was kept.
"""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.canonical import digest_bytes
from common.errors import LedgerError, ReleaseRefused
from common.ids import Digest, ReleaseId, SiteId, StudyId, parse_study_id
from common.privacy.accountant import epsilon_of_counted
from common.privacy.accounts import monitoring_account
from common.privacy.ledger import Ledger
from common.privacy.ledger_chain import find_commitment
from common.privacy.ledger_entry import Commitment
from common.privacy.mechanism import MechanismRecord
from common.privacy.spending_limits import SpendingLimits
from common.protocol.monitoring.report_content import ReportContent, encode_content
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from common.study.report_epsilon import counted_mechanisms, kind_mechanisms
from common.study.report_periods import REFERENCE, Every, Period, period_of_ordinal
from common.study.report_tensors import ReportKind
from site_client.release.checks import check_report
from site_client.release.release_log import LoggedReport, ReleaseLog
from site_client.release.report_noise import NoisedCounts
from site_client.release.site_limits import SiteLimits


@dataclass(frozen=True)
class ReportRequest:
    """One report that may be made.

    Args:
        plan: approved, with `[monitoring]`.
        kind: of the report.
        period: None for the reference.
        model_version: digest of the parameters that score.
    """

    plan: StudyPlan
    kind: ReportKind
    period: Period | None
    model_version: Digest

    @property
    def label(self) -> str:
        """The period's label, or `reference`."""
        return REFERENCE if self.period is None else self.period.label

    @property
    def account(self) -> StudyId:
        """The account that pays."""
        return monitoring_account(parse_study_id(self.plan.study.id))

    @property
    def mechanisms(self) -> tuple[MechanismRecord, ...]:
        """Every noisy step of the report."""
        return kind_mechanisms(self.plan, self.kind)

    @property
    def number(self) -> int:
        """What stands for a round in the records: 0, then two numbers for each period."""
        if self.period is None:
            return 0
        return 2 * self.period.ordinal + (2 if self.kind is ReportKind.OUTCOME else 1)

    def release_id(self, site_id: SiteId) -> ReleaseId:
        """Return the name of this release, the same on every retry and for every model."""
        return ReleaseId(
            digest_bytes(
                "report-release",
                site_id.encode(),
                self.account.encode(),
                plan_digest(self.plan).encode(),
                self.kind.value.encode(),
                self.label.encode(),
            )
        )


def words_of_number(number: int, every: Every) -> str:
    """Return which report a number in the records stands for, such as "case-mix of 2026-02"."""
    if number == 0:
        return REFERENCE
    ordinal, is_outcome = divmod(number - 1, 2)
    kind = ReportKind.OUTCOME if is_outcome else ReportKind.CASE_MIX
    return f"{kind.value} of {period_of_ordinal(ordinal, every).label}"


@functools.lru_cache(maxsize=16)
def monitoring_commitment(plan: StudyPlan) -> Commitment:
    """Return all that a plan's reports may ever do to a site's patients.

    Raises:
        AccountingError: when no noise keeps the plan's epsilon per report.
    """
    planned = counted_mechanisms(plan)
    delta = plan.privacy.delta
    return Commitment(
        study_id=monitoring_account(parse_study_id(plan.study.id)),
        plan_digest=plan_digest(plan),
        epsilon=epsilon_of_counted(dict(planned), delta=delta),
        delta=delta,
        planned=planned,
    )


class ReportReleases:
    """Makes contents of reports, each once.

    Args:
        site_id: the site.
        ledger, log: where spending and releases are recorded.
        limits: the site's own.
        is_real_ledger: true when the ledger is on disk; then test randomness is refused.
        lock: a file; one process at a time makes a report, so that noise is drawn once.
    """

    def __init__(
        self,
        site_id: SiteId,
        *,
        ledger: Ledger,
        log: ReleaseLog,
        limits: SiteLimits,
        is_real_ledger: bool,
        lock: Path,
    ) -> None:
        self._site_id = site_id
        self._ledger = ledger
        self._log = log
        self._limits = limits
        self._is_real_ledger = is_real_ledger
        self._lock = lock

    def release(
        self, request: ReportRequest, *, produce: Callable[[], NoisedCounts]
    ) -> LoggedReport:
        """Return the one content of a report, made now or before; waits for another process.

        Args:
            request: which report.
            produce: counts and adds noise; called at most once, after the budget is reserved.

        Raises:
            BudgetError: R11, R12, or R8 for more periods than the plan has; nothing was computed.
            LedgerError: the ledger or log cannot be written; nothing leaves.
            ReleaseRefused: a G number; nothing leaves, now or later.
        """
        release_id = request.release_id(self._site_id)
        with _held(self._lock):
            logged = self._log.report(release_id)
            if logged is None:
                self._make(request, release_id, produce)
                logged = self._log.report(release_id)
            if logged is None:
                raise _failed("", "the log does not hold what it was given")
            # After a crash between log and ledger the content is there and this is still owed.
            self._ledger.record_released(release_id, digest_bytes("payload", logged.content))
            return logged

    def is_failed(self, request: ReportRequest) -> bool:
        """Return whether this report was computed and let nothing out."""
        return self._log.is_failed(request.release_id(self._site_id))

    def find(self, request: ReportRequest) -> LoggedReport | None:
        """Return the content that was made for this request, if there is one."""
        return self._log.report(request.release_id(self._site_id))

    def is_charged(self, plan: StudyPlan) -> bool:
        """Return whether the ledger holds the commitment for a plan's reports."""
        wanted = monitoring_commitment(plan)
        named = (wanted.study_id, wanted.plan_digest)
        return find_commitment(self._ledger.entries(), *named) is not None

    def check_budget(self, plan: StudyPlan) -> None:
        """Refuse reports of a plan that would pass a limit; charges nothing; as `release`."""
        self._ledger.check_commit(monitoring_commitment(plan), self._limits.for_monitoring(plan))

    def _make(
        self,
        request: ReportRequest,
        release_id: ReleaseId,
        produce: Callable[[], NoisedCounts],
    ) -> None:
        if self._log.is_failed(release_id):
            raise _failed("", "it failed before")
        limits = self._limits.for_monitoring(request.plan)
        self._ledger.commit(monitoring_commitment(request.plan), limits)
        self._ledger.reserve(
            release_id,
            study_id=request.account,
            round_number=request.number,
            mechanisms=request.mechanisms,
            limits=limits,
            plan_digest=plan_digest(request.plan),
        )
        try:
            counts = produce()
            check_report(counts, request.plan, request.kind, is_real_ledger=self._is_real_ledger)
        except Exception as error:
            # One number for every fault, and no text: either could tell about a patient.
            number = error.number if isinstance(error, ReleaseRefused) else ""
            self._log.record_failed(release_id)
            self._log.append_refusal(
                study_id=request.account,
                round_number=request.number,
                number=number,
                ledger_head=self._ledger.head(),
            )
            raise _failed(number, number or type(error).__name__) from None
        self._log.append_report(
            LoggedReport(
                release_id=release_id,
                account=request.account,
                kind=request.kind,
                period=request.label,
                model_version=request.model_version,
                plan_digest=plan_digest(request.plan),
                content=encode_content(self._content(request, counts, limits)),
            ),
            number=request.number,
            ledger_head=self._ledger.head(),
        )

    def _content(
        self, request: ReportRequest, counts: NoisedCounts, limits: SpendingLimits
    ) -> ReportContent:
        spent = self._ledger.spent(request.account, limits.delta).epsilon
        return ReportContent(
            kind=request.kind,
            period=request.label,
            mechanisms=request.mechanisms,
            epsilon_spent=spent,
            epsilon_remaining=max(0.0, limits.epsilon_study_max - spent),
            delta=limits.delta,
            ledger_head=self._ledger.head(),
            software_version=_software_version(),
            counts=counts.cells,
        )


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    try:
        stream = lock.open("a")
    except OSError:
        raise LedgerError(
            "the lock of monitoring reports cannot be opened",
            expected=f"a writable file {lock}",
            arrived="an error of the file system",
            todo="check space, permissions and the disk; nothing is released until then",
        ) from None
    with stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        yield


def _software_version() -> str:
    try:
        return version("cohortium")
    except PackageNotFoundError:
        return "unknown"


def _failed(number: str, how: str) -> ReleaseRefused:
    is_small = number == "G10"
    return ReleaseRefused(
        "a monitoring report is not let out",
        expected="a report that passes checks G1, G2, G9 and G10",
        arrived="a noisy number of patients below the plan's patients_min" if is_small else how,
        todo="nothing needs to be done: the board sees that no report came"
        if is_small
        else "report this as a fault; this report is over for this site, the next one is made anew",
        number=number,
    )
