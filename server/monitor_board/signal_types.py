"""What the board is told about each site: signals, states, reasons."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from common.ids import SiteId
from common.study.report_tensors import ReportKind


class State(enum.Enum):
    """How a signal or a site stands; docs/monitoring-signals.md says what each asks for."""

    OK = "ok"
    WATCH = "watch"
    ALERT = "alert"
    INSUFFICIENT = "insufficient"
    SILENT = "silent"


class Reason(enum.Enum):
    """Why, as far as counts can tell."""

    DATA = "data"
    COVARIATE = "covariate"
    PRIOR = "prior"
    CONCEPT = "concept"
    FAIRNESS = "fairness"
    SILENT = "silent"


class Metric(enum.Enum):
    """What is watched."""

    SENTINEL = "sentinel"
    MISSING = "missing"
    SCORES = "scores"
    PREVALENCE = "prevalence"
    AUROC = "auroc"
    CALIBRATION_SLOPE = "calibration-slope"
    CALIBRATION_INTERCEPT = "calibration-intercept"
    SENSITIVITY_GAP = "sensitivity-gap"
    FALSE_POSITIVE_GAP = "false-positive-gap"
    PREDICTIVE_VALUE_GAP = "predictive-value-gap"
    EXCESS_RISK_GAP = "excess-risk-gap"


@dataclass(frozen=True)
class Watch:
    """One test of the plan, made at every site and on all sites together.

    Args:
        subject: a sentinel's or group's name, else empty.
        level: of a group; the level is compared with all other patients.
        tensor: in the reports, by name.
    """

    metric: Metric
    kind: ReportKind
    tensor: str
    subject: str = ""
    level: int | None = None


@dataclass(frozen=True)
class TrailPoint:
    """A signal's value in one period; None where data do not suffice."""

    period: str
    estimate: float | None
    low: float | None
    high: float | None
    change: float | None
    p_value: float | None
    level: float


@dataclass(frozen=True)
class QuarterlyLook:
    """The reports of a quarter together against the reference alone.

    Args:
        p_value: to be compared with `p_value_max`, what the looks of a year may spend.
        is_beyond: whether the change passes the plan's tolerance.
    """

    quarter: str
    change: float
    p_value: float
    p_value_max: float
    is_beyond: bool


@dataclass(frozen=True)
class Signal:
    """One quantity at one site, or at all sites together.

    Args:
        site_id: None for all sites together.
        name: of the metric and subject, in words.
        period: of the last report that tells it; empty when there is none.
        estimate: the quantity; of a sentinel, its missing values and the scores, how far it is from
            the past. None when data do not suffice.
        low, high: 95 % interval of the estimate, for chance and DP noise together.
        change: from the pooled past, less what chance and noise add to a distance.
        is_beyond: whether that passes the plan's tolerance.
        p_value: that nothing changed, for this report alone.
        level, alarm: of the sequential test, and where it alarms, in nats.
        is_found: whether the p-value stands among all tests of the round (false discovery rate).
        words: one sentence.
    """

    site_id: SiteId | None
    watch: Watch
    name: str
    period: str
    estimate: float | None
    low: float | None
    high: float | None
    change: float | None
    is_beyond: bool
    p_value: float | None
    level: float
    alarm: float
    is_found: bool
    look: QuarterlyLook | None
    state: State
    reasons: tuple[Reason, ...]
    words: str


@dataclass(frozen=True)
class MissingReport:
    """A report that is owed: its last day has passed."""

    site_id: SiteId
    kind: ReportKind
    period: str
    late_since_s: int


@dataclass(frozen=True)
class Finding:
    """A reason with what a reader may and may not conclude.

    Args:
        is_certain: whether an alert gives it; else only signals to watch do.
    """

    reason: Reason
    is_certain: bool
    words: str
    may_conclude: str
    may_not_conclude: str


@dataclass(frozen=True)
class SiteSignals:
    """All that is known of one site, or of all sites together (`site_id` None)."""

    site_id: SiteId | None
    state: State
    findings: tuple[Finding, ...]
    signals: tuple[Signal, ...]
    missing: tuple[MissingReport, ...]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The findings' reasons, in order."""
        return tuple(finding.reason for finding in self.findings)
