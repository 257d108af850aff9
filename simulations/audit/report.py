"""The audit's result as frozen data, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from simulations.audit.one_run import CONFIDENCE, OneRunResult

FALSE_ALARM: Final = 1e-6
"""The probability that a check fails on an engine without fault: at most this, for each check."""
LIMIT: Final = (
    "A lower bound above the promise proves a bug. A low one proves nothing: the promise rests on "
    "the mechanism and its accounting, and this audit looks for code that departs from them."
)


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        name: short and stable.
        is_passed: whether the engine keeps it.
        measured: what was found.
        allowed: what would pass.
        meaning: what a failure would mean.
    """

    name: str
    is_passed: bool
    measured: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class AuditReport:
    """The result for one plan.

    Args:
        study_id, plan_digest: of the plan.
        epsilon, delta: what the ledger states for the rounds that ran.
        rounds, studies, steps, patients: how much was simulated; `steps` over all studies,
            `patients` in each.
        one_run: what the canaries show.
        checks: all of them.
        seconds: it took.
    """

    study_id: str
    plan_digest: str
    epsilon: float
    delta: float
    rounds: int
    studies: int
    steps: int
    patients: int
    one_run: OneRunResult
    checks: tuple[Check, ...]
    seconds: float

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of failed checks."""
        return tuple(check.name for check in self.checks if not check.is_passed)


def report_record(report: AuditReport) -> dict[str, Any]:
    """Return the report for JSON."""
    return asdict(report) | {
        "is_passed": not report.failed,
        "confidence": CONFIDENCE,
        "false_alarm_per_check": FALSE_ALARM,
        "limit": LIMIT,
    }


def report_text(report: AuditReport) -> str:
    """Return the report for people."""
    one_run = report.one_run
    lines = [
        f"Privacy audit of {report.study_id}, plan {report.plan_digest[:16]}",
        f"{report.studies} shadow studies of up to {report.rounds} rounds, {report.steps} noisy "
        f"steps, {report.patients} generated patients each, {one_run.canaries} canaries in all; "
        f"{report.seconds:.0f} s",
        "",
        f"epsilon stated     {report.epsilon:.3f} at delta {report.delta:g}",
        f"epsilon shown      {one_run.epsilon_min:.3f} at least, with {CONFIDENCE:.0%} confidence "
        f"({one_run.correct} of {one_run.guesses} guesses right; all right would show "
        f"{one_run.epsilon_min_possible:.3f})",
        "",
    ]
    for check in report.checks:
        lines += [
            f"{'passed' if check.is_passed else 'FAILED'}  {check.name}: {check.measured}",
            f"        allowed: {check.allowed}",
        ]
        if not check.is_passed:
            lines.append(f"        means: {check.meaning}")
    return "\n".join([*lines, "", LIMIT])
