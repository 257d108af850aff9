"""`check`: whether this site can take part, in plain words, one line a question."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from common import limits
from common.clock import Clock, utc_text
from common.errors import BudgetError, CohortiumError, TransportError
from common.ids import StudyId
from common.privacy.calibration import plan_mechanisms
from common.privacy.ledger_entry import Commitment
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from common.study.selection_words import words_of_selection
from site_client.config import SiteConfig, SitePaths, read_site_config
from site_client.courier.main import CourierConfig, read_courier_config
from site_client.open_site import OpenSite, open_site
from site_client.quality.figures import QualityFigures
from site_client.quality.report import QualityReport, report_quality
from site_client.release.report_release import monitoring_commitment
from site_client.release.site_limits import SiteLimits
from site_client.site_features import inspected_rows
from site_client.sources.table import PatientTable

_REACH_WAIT_S: Final = 10.0
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True)
class Finding:
    """One question and its answer.

    Args:
        question: in plain words.
        is_ok: whether nothing needs to be done.
        answer: what was found; never a value from a patient's row.
        todo: what to do when it is not ok.
    """

    question: str
    is_ok: bool
    answer: str
    todo: str = ""

    def as_record(self) -> dict[str, str | bool]:
        """Return a flat record for `--json`."""
        return {
            "question": self.question,
            "ok": self.is_ok,
            "answer": self.answer,
            "to_do": self.todo,
        }


@dataclass(frozen=True)
class Preflight:
    """All findings, and the quality report when a plan was given and the data could be read."""

    findings: tuple[Finding, ...]
    quality: QualityReport | None

    @property
    def is_ok(self) -> bool:
        """Whether every answer is ok."""
        return all(finding.is_ok for finding in self.findings)


def check_site(paths: SitePaths, plan: StudyPlan | None, *, clock: Clock) -> Preflight:
    """Ask every question; a question that depends on one that failed is left out."""
    findings: list[Finding] = []
    config = _ask(findings, "site.toml is complete", lambda: read_site_config(paths))
    site = _ask(
        findings,
        "keys, enrolment, ledger and log are whole",
        lambda: _open_and_verify(paths, clock),
    )
    courier = _ask(
        findings, "the courier is configured", lambda: read_courier_config(paths.courier)
    )
    if courier is not None:
        findings.extend(_reach(courier, clock))
        if courier.relay:
            findings.append(_reach_relay(courier))
    quality: QualityReport | None = None
    if plan is not None and plan.selection is not None:
        findings.append(Finding("the plan only selects", True, words_of_selection(plan)))
    if config is not None and plan is not None:
        rows = _ask(
            findings,
            "the data fit the plan",
            lambda: inspected_rows(plan, config.source, paths=paths, clock=clock),
        )
        if rows is not None:
            quality = report_quality(plan, rows)
            findings.append(_cohort(config, rows.table))
            findings.extend(_plausible(quality.figures))
        findings.extend(_limits(config, plan, site))
        if plan.monitoring is not None:
            findings.extend(_monitoring(config, plan, site, courier))
        if site is not None:
            findings.append(_approval(site, plan, clock))
    return Preflight(tuple(findings), quality)


def _ask(findings: list[Finding], question: str, ask: Callable[[], AnswerT]) -> AnswerT | None:
    try:
        answer = ask()
    except CohortiumError as error:
        found = f"{error.refused}; expected {error.expected}; found {error.arrived}"
        findings.append(Finding(question, False, found, error.todo))
        return None
    findings.append(Finding(question, True, "yes"))
    return answer


def _open_and_verify(paths: SitePaths, clock: Clock) -> OpenSite:
    site = open_site(paths, clock=clock)
    site.records.ledger.verify()
    site.records.log.verify()
    return site


def _reach(courier: CourierConfig, clock: Clock) -> Iterator[Finding]:
    question = f"the coordinator answers at {courier.address}"
    try:
        date_text = _date_of_coordinator(courier)
    except TransportError as error:
        yield Finding(question, False, error.arrived, error.todo)
        return
    yield Finding(question, True, "yes" + (f", through {courier.proxy}" if courier.proxy else ""))
    if not date_text:
        return
    theirs = email.utils.parsedate_to_datetime(date_text).astimezone(datetime.UTC)
    skew_s = abs(int(theirs.timestamp()) - clock.now_s())
    yield Finding(
        "the two clocks agree",
        skew_s <= limits.CLOCK_SKEW_S_MAX,
        f"they differ by {skew_s} s",
        "set this machine's clock (NTP)",
    )


def _reach_relay(courier: CourierConfig) -> Finding:
    from site_client.courier.main import relay_access
    from site_client.courier.relay_check import ask_relay

    question = f"the relay of monitoring reports answers at {courier.relay}"
    try:
        is_ok, words = ask_relay(relay_access(courier), wait_s=_REACH_WAIT_S)
    except CohortiumError as error:
        return Finding(question, False, error.arrived, error.todo)
    through = f", through {courier.proxy}" if courier.proxy else ""
    todo = "" if is_ok else "ask the consortium's authority; a site with new keys is named anew"
    return Finding(question, is_ok, words + through, todo)


def _date_of_coordinator(courier: CourierConfig) -> str:
    import ssl

    import httpx

    try:
        context = ssl.create_default_context(cafile=str(courier.ca_file))
        with httpx.Client(
            verify=context, proxy=courier.proxy or None, timeout=_REACH_WAIT_S
        ) as client:
            return str(client.get(f"https://{courier.address}/health").headers.get("date", ""))
    except (httpx.HTTPError, OSError) as error:
        found, todo = _why_unreachable(error, courier)
        raise TransportError(
            "the coordinator does not answer",
            expected=f"TLS on {courier.address}",
            arrived=found,
            todo=todo,
        ) from None


def _why_unreachable(error: Exception, courier: CourierConfig) -> tuple[str, str]:
    """Return what was found in plain words, and what to do."""
    import httpx

    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            "the certificate that answered is not from the consortium's authority",
            "if the hospital inspects TLS, join again with --extra-ca and that authority; "
            "else call the coordinator: somebody else may answer there",
        )
    if isinstance(error, httpx.ProxyError):
        return f"the proxy {courier.proxy} refused", "ask for the address to be let through"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {_REACH_WAIT_S:g} s", "check the firewall and the proxy"
    if isinstance(error, httpx.ConnectError):
        return (
            "no connection: nothing listens there, or the name is unknown",
            "check the address, the proxy, and whether the coordinator is up",
        )
    return (
        f"something that is not the coordinator ({type(error).__name__})",
        "check the address and the proxy",
    )


def _cohort(config: SiteConfig, table: PatientTable) -> Finding:
    patients, least = table.patients, config.limits.cohort_size_min
    declared = config.site.declared_cohort_size
    if patients < least:
        return Finding(
            "there are enough patients",
            False,
            f"{patients} with a recorded outcome; your minimum is {least}",
            "wait for more patients, or lower cohort_size_min",
        )
    is_near = declared / 2 <= patients <= declared * 2
    return Finding(
        "there are enough patients, about as many as declared",
        is_near,
        f"{patients} with a recorded outcome; declared: {declared}",
        "" if is_near else "set declared_cohort_size in site.toml to a round number near the truth",
    )


def _plausible(quality: QualityFigures) -> Iterator[Finding]:
    """What no rule refuses and no steward should miss."""
    for item in quality.features:
        if item.unmapped > limits.OUT_OF_RANGE_FRACTION_MAX * quality.rows:
            yield Finding(
                f"the texts of {item.name} are mapped",
                False,
                f"{item.unmapped} of {quality.rows} are not named in `values` and count as missing",
                f"complete `values` under [source.features.{item.name}]",
            )
    absent = [item.name for item in quality.features if item.recorded == 0]
    if absent:
        yield Finding(
            "every feature has values",
            False,
            f"none is recorded of {', '.join(absent)}",
            "correct the mapping; if you do not record it, tell the coordinator",
        )
    if not 0 < quality.positive < quality.rows:
        yield Finding(
            "both outcomes occur",
            False,
            "every patient has the same outcome",
            "check `positive` and `negative` under [source.label]",
        )


def _approval(site: OpenSite, plan: StudyPlan, clock: Clock) -> Finding:
    question = "the plan's approval"
    todo = "read the plan and run `cohortium-site approve PLAN --as NAME --until DATE`"
    found = {item.plan_digest: item for item in site.records.approvals.all_approvals()}
    approval = found.get(plan_digest(plan))
    if site.records.approvals.is_training_paused(StudyId(plan.study.id)):
        return Finding(question, False, "the study is paused here", "run `unpause` to go on")
    if approval is None:
        # Not a problem: a steward decides after `check` and `preview`.
        return Finding(question, True, f"not given yet: {todo}")
    until = utc_text(approval.until_s)
    if approval.is_withdrawn or clock.now_s() > approval.until_s:
        how = "withdrawn" if approval.is_withdrawn else f"ended at {until}"
        return Finding(question, False, how, todo)
    return Finding(question, True, f"by {approval.person} until {until}")


def _limits(config: SiteConfig, plan: StudyPlan, site: OpenSite | None) -> Iterator[Finding]:
    asked, most = plan.privacy.epsilon, config.limits.epsilon_per_study
    yield Finding(
        "the plan's epsilon is within your limit for one study",
        asked <= most,
        f"the plan asks for {asked:g}, your limit epsilon_per_study is {most:g}",
        "" if asked <= most else "refuse the plan, or raise the limit if your board agrees",
    )
    if site is None:
        return
    charged = site.records.ledger.committed_total(config.limits.delta_total).epsilon
    commitment = Commitment(
        study_id=StudyId(plan.study.id),
        plan_digest=plan_digest(plan),
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        planned=plan_mechanisms(plan).counted,
    )
    todo = ""
    try:
        site.records.ledger.check_commit(commitment, SiteLimits.of(config.limits).for_plan(plan))
    except BudgetError as error:
        todo = f"refuse the plan, or raise a limit if your board agrees ({error.arrived})"
    yield Finding(
        "your limits have room for all that the plan may ever do",
        not todo,
        f"studies so far promised {charged:.3f} of epsilon_total {config.limits.epsilon_total:g}",
        todo,
    )


def _monitoring(
    config: SiteConfig, plan: StudyPlan, site: OpenSite | None, courier: CourierConfig | None
) -> Iterator[Finding]:
    """Whether all reports that the plan may ever make have room, before the first is charged."""
    if courier is not None and not courier.relay:
        # Not a problem: training needs no relay, and reports begin after it.
        words = "not yet: before reports, `join` again with --relay HOST:PORT"
        yield Finding("the courier knows the relay of the plan's reports", True, words)
    commitment, most = monitoring_commitment(plan), config.limits.epsilon_monitoring
    is_within = commitment.epsilon <= most
    yield Finding(
        "all reports that the plan may ever make are within your limit for them",
        is_within,
        f"they come to epsilon {commitment.epsilon:.3f}; epsilon_monitoring_per_study is {most:g}",
        "" if is_within else "raise that limit if your board agrees; below it no report leaves",
    )
    if site is None or not is_within:
        return
    todo = ""
    spending = SiteLimits.of(config.limits).for_monitoring(plan)
    try:
        site.records.ledger.check_commit(commitment, spending)
    except BudgetError as error:
        todo = f"raise a limit if your board agrees, or no report leaves ({error.arrived})"
    yield Finding(
        "your limits have room for the reports besides the studies",
        not todo,
        f"epsilon_total is {config.limits.epsilon_total:g} for all studies and all reports",
        todo,
    )
