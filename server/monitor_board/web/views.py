"""What each page of the dashboard shows: values ready to print, without reports or keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.monitor_board.signal_types import Finding, Reason, State

ALL_SITES: Final = "all sites"
"""Where a page names a site, for all of them together; no site's id has a space."""


@dataclass(frozen=True)
class Number:
    """An estimate with its 95 % interval; `value` is None where the data do not suffice."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Column:
    """One column of the heat map: a family of signals, its title and its definition."""

    key: str
    title: str
    definition: str


@dataclass(frozen=True)
class HeatCell:
    """The worst signal of one family at one site.

    Args:
        number: the estimate or effect of that signal, or None.
        words: what it says, one clause; empty where nothing is to be said.
    """

    state: State
    number: Number | None = None
    words: str = ""


@dataclass(frozen=True)
class HeatRow:
    """One site in the heat map; `cells` in the order of the columns."""

    site_id: str
    state: State
    reasons: tuple[Reason, ...]
    last_period: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class SeriesPoint:
    """One period of a time series.

    Args:
        evidence: level of the sequential test as a share of its alarm; 1 or more is an alarm.
        state: of the newest period alone.
    """

    period: str
    number: Number
    evidence: float
    state: State | None = None


@dataclass(frozen=True)
class Series:
    """One quantity over periods.

    Args:
        key: of its definition and of its anchor in the page.
        limit_low, limit_high: the plan's tolerances, in the quantity's unit, or None.
        is_main: whether a page shows it unasked: it is raised, or about all patients.
    """

    key: str
    title: str
    definition: str
    points: tuple[SeriesPoint, ...]
    limit_low: float | None = None
    limit_high: float | None = None
    is_main: bool = True


@dataclass(frozen=True)
class SignalRow:
    """One signal in numbers.

    Args:
        metric: and what it is about, in words.
        effect: change from the pooled past.
        evidence: level of the sequential test as a share of its alarm; 1 or more is an alarm.
        p_value: that nothing changed, for this report alone.
    """

    metric: str
    period: str
    number: Number
    effect: float | None
    p_value: float | None
    evidence: float
    state: State
    words: str


@dataclass(frozen=True)
class ReliabilityBin:
    """Patients whose predicted probability is in [low, high).

    Args:
        predicted: their mean predicted probability, or the middle of the bin.
        observed: share of them with the outcome.
        patients: their noisy number; None where it is too small to be shown.
    """

    low: float
    high: float
    predicted: float
    observed: Number
    patients: int | None


@dataclass(frozen=True)
class RocPoint:
    """False and true positive rate when patients at or above `threshold` are called positive."""

    threshold: float
    false_positive_rate: Number
    true_positive_rate: Number


@dataclass(frozen=True)
class Performance:
    """How well one model version predicts in some patients.

    Args:
        metrics: title and number, in the order of the page.
    """

    title: str
    period: str
    reliability: tuple[ReliabilityBin, ...]
    roc: tuple[RocPoint, ...]
    metrics: tuple[tuple[str, Number], ...]


@dataclass(frozen=True)
class ModelVersion:
    """A model version that reports judged."""

    version: str
    first_period: str
    last_period: str
    reports: int
    is_newest: bool


@dataclass(frozen=True)
class ModelView:
    """The model page: versions, and the newest one's performance, all sites together first."""

    versions: tuple[ModelVersion, ...]
    performances: tuple[Performance, ...]


@dataclass(frozen=True)
class FairnessRow:
    """One gap between a group and all others.

    Args:
        where: a site, or "all sites".
        number: the gap; its value is None where it is suppressed.
        p_value: by Holm, for the levels compared by this measure.
        state: of the gap's signal; None where the gap is shown and not tested.
    """

    where: str
    period: str
    feature: str
    level: str
    metric: str
    number: Number
    p_value: float | None
    state: State | None


@dataclass(frozen=True)
class WorstGroup:
    """The level of a group with the worst value of one measure, where data suffice.

    Args:
        where: all sites together, or the only site.
        number: that level's value.
        difference: between the levels farthest apart; too large by nature, to show and not to test.
    """

    where: str
    period: str
    feature: str
    level: str
    metric: str
    number: Number
    difference: float | None


@dataclass(frozen=True)
class FairnessView:
    """The fairness page; rows in the order they are shown, all sites together first."""

    tolerance: float
    rows: tuple[FairnessRow, ...]
    worst: tuple[WorstGroup, ...] = ()


@dataclass(frozen=True)
class PrivacyRow:
    """One site's monitoring account.

    Args:
        spent, remaining: as its newest report states them, at `delta`.
        periods: period and what was spent in all when it had been reported, oldest first.
    """

    site_id: str
    spent: float
    remaining: float
    delta: float
    periods: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ProtocolRow:
    """One site's chain of reports.

    Args:
        state: SILENT when a report is owed, WATCH when a number is missing or one was refused.
        missing, waiting: sequence numbers, such as "3, 7-9"; empty when none is.
    """

    site_id: str
    state: State
    roster_status: str
    key_epoch: int | None
    reports: int
    newest_sequence: int
    newest_period: str
    age_s: int | None
    missing: str
    waiting: str
    refusals: int


@dataclass(frozen=True)
class RefusalRow:
    """One envelope that the board refused, and its number in the table of refusals."""

    received: str
    site_id: str
    sequence: int | None
    number: str
    words: str


@dataclass(frozen=True)
class RemarkRow:
    """A report that is used and implausible."""

    site_id: str
    sequence: int
    check: str
    words: str


@dataclass(frozen=True)
class ProtocolView:
    """The protocol page; the newest refusals first."""

    rows: tuple[ProtocolRow, ...]
    refusals: tuple[RefusalRow, ...]
    remarks: tuple[RemarkRow, ...]
    roster_version: int | None
    roster_until: str


@dataclass(frozen=True)
class Signature:
    """Whose signature of a decision verified, and with which key."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class DecisionRow:
    """One decision of the board, in the order of its chain.

    Args:
        needed: how many signatures make it valid.
        objection: why it was not valid any more when it came; else empty.
    """

    number: int
    opened: str
    action: str
    about: str
    period: str
    reason: str
    signatures: tuple[Signature, ...]
    needed: int
    objection: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether it has the signatures it needs, and had them when it came."""
        count = len({item.fingerprint for item in self.signatures})
        return not self.objection and count >= self.needed


@dataclass(frozen=True)
class SiteView:
    """One site's page, or that of all sites together.

    Args:
        owed: reports whose last day has passed.
    """

    site_id: str
    state: State
    findings: tuple[Finding, ...]
    owed: tuple[str, ...]
    signals: tuple[SignalRow, ...]
    series: tuple[Series, ...]
    performance: Performance | None


@dataclass(frozen=True)
class StudyView:
    """All pages of one study.

    Args:
        sites: by site id; the sites of `rows`.
        pooled: all sites together; None where that would say nothing else.
    """

    study_id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[HeatRow, ...]
    sites: Mapping[str, SiteView]
    pooled: SiteView | None
    model: ModelView
    fairness: FairnessView
    privacy: tuple[PrivacyRow, ...]
    protocol: ProtocolView
    decisions: tuple[DecisionRow, ...]


@dataclass(frozen=True)
class BoardView:
    """All that the dashboard shows, at one position of the board's store.

    Args:
        position: of the newest thing it was made from.
        made: when, UTC.
        made_at_s: the same as Unix time.
    """

    board: str
    position: int
    made: str
    made_at_s: int
    studies: Mapping[str, StudyView]
