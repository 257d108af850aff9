"""From the board's signals to the heat map and to each site's page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from common.study.monitoring import Tolerances
from common.study.plan import StudyPlan
from server.monitor_board.plan_watches import GAPS
from server.monitor_board.signal_types import (
    Metric,
    Signal,
    SiteSignals,
    State,
    TrailPoint,
    Watch,
)
from server.monitor_board.signal_words import missing_names
from server.monitor_board.web.definitions import METRIC_DEFINITIONS
from server.monitor_board.web.states import RANKS
from server.monitor_board.web.views import (
    ALL_SITES,
    Column,
    HeatCell,
    HeatRow,
    Number,
    Performance,
    Series,
    SeriesPoint,
    SignalRow,
    SiteView,
)

Trail = Callable[[Watch], Sequence[TrailPoint]]

_REPORTING: Final = Column(
    "reporting", "Reporting", "SILENT when a report is overdue; see the protocol page."
)
_FAMILIES: Final[Mapping[Column, frozenset[Metric]]] = {
    Column(key, title, definition): metrics
    for key, title, definition, metrics in (
        (
            "missing",
            "Missing values",
            "Share of patients without a sentinel's value; the worst sentinel.",
            frozenset({Metric.MISSING}),
        ),
        (
            "features",
            "Features",
            "How far a sentinel's distribution moved from the past, in reference deviations; "
            "the worst sentinel.",
            frozenset({Metric.SENTINEL}),
        ),
        (
            "scores",
            "Scores",
            "How far the distribution of predicted risks moved from the past.",
            frozenset({Metric.SCORES}),
        ),
        (
            "prevalence",
            "Outcome rate",
            "Share of patients with the outcome.",
            frozenset({Metric.PREVALENCE}),
        ),
        ("auroc", "AUROC", METRIC_DEFINITIONS[Metric.AUROC], frozenset({Metric.AUROC})),
        (
            "calibration",
            "Calibration",
            "Slope or intercept of the outcome on the score's logit; the worse one.",
            frozenset({Metric.CALIBRATION_SLOPE, Metric.CALIBRATION_INTERCEPT}),
        ),
        (
            "fairness",
            "Fairness",
            "A group's rate minus that of all other patients; the worst gap.",
            frozenset(GAPS),
        ),
    )
}


def columns_of(watches: Sequence[Watch]) -> tuple[Column, ...]:
    """Return the heat map's columns: reporting, and each family that the plan watches."""
    watched = {watch.metric for watch in watches}
    return (_REPORTING, *(column for column, metrics in _FAMILIES.items() if metrics & watched))


def heat_row(site: SiteSignals, columns: Sequence[Column]) -> HeatRow:
    """Return one site's row of the heat map."""
    by_metric: dict[Metric, list[Signal]] = {}
    for signal in site.signals:
        by_metric.setdefault(signal.watch.metric, []).append(signal)
    cells = [_reporting_cell(site)]
    for column in columns[1:]:
        found = [item for metric in _FAMILIES[column] for item in by_metric.get(metric, ())]
        cells.append(_cell(found))
    newest = max((signal.period for signal in site.signals), default="")
    return HeatRow(str(site.site_id), site.state, site.reasons, newest or "–", tuple(cells))


def site_view(
    site: SiteSignals, plan: StudyPlan, trail: Trail, performance: Performance | None
) -> SiteView:
    """Return one site's page, or that of all sites together.

    Args:
        trail: gives each signal's values in all periods, oldest first.
    """
    ordered = sorted(site.signals, key=lambda signal: RANKS[signal.state])
    return SiteView(
        site_id=ALL_SITES if site.site_id is None else str(site.site_id),
        state=site.state,
        findings=site.findings,
        owed=tuple(missing_names(site.missing)),
        signals=tuple(_signal_row(signal) for signal in ordered),
        series=tuple(_all_series(ordered, plan, trail)),
        performance=performance,
    )


def number_of(value: float | None, low: float | None, high: float | None) -> Number:
    """Return a number, without an interval where there is no value."""
    return Number(None) if value is None else Number(value, low, high)


def _reporting_cell(site: SiteSignals) -> HeatCell:
    if not site.missing:
        return HeatCell(State.OK)
    return HeatCell(State.SILENT, None, f"{len(site.missing)} overdue")


def _cell(signals: Sequence[Signal]) -> HeatCell:
    if not signals:
        return HeatCell(State.INSUFFICIENT)
    # Among equals the one with the most evidence; a larger change is no measure across subjects.
    worst = min(signals, key=lambda item: (RANKS[item.state], -item.level))
    is_named = len(signals) > 1 and worst.state in (State.ALERT, State.WATCH)
    return HeatCell(
        worst.state,
        number_of(worst.estimate, worst.low, worst.high),
        _short_name(worst) if is_named else "",
    )


def _short_name(signal: Signal) -> str:
    # The column says what is measured of a sentinel.
    is_sentinel = signal.watch.metric in (Metric.SENTINEL, Metric.MISSING)
    return signal.watch.subject if is_sentinel else signal.name


def _signal_row(signal: Signal) -> SignalRow:
    return SignalRow(
        metric=signal.name,
        period=signal.period or "–",
        number=number_of(signal.estimate, signal.low, signal.high),
        effect=signal.change,
        p_value=signal.p_value,
        evidence=_evidence(signal.level, signal),
        state=signal.state,
        words=signal.words + _look_words(signal),
    )


def _look_words(signal: Signal) -> str:
    look = signal.look
    if look is None:
        return ""
    beyond = "beyond" if look.is_beyond else "within"
    return (
        f" The quarter {look.quarter} against the reference: change {look.change:.3f}, {beyond} "
        f"the tolerance, p {look.p_value:.2g} (counts from {look.p_value_max:.2g})."
    )


def _all_series(signals: Sequence[Signal], plan: StudyPlan, trail: Trail) -> Iterator[Series]:
    tolerances = plan.monitoring.tolerances if plan.monitoring is not None else Tolerances()
    for signal in signals:
        low, high = _limits(signal.watch.metric, tolerances)
        found = trail(signal.watch)
        if not found:
            continue
        points = [
            SeriesPoint(
                item.period,
                number_of(item.estimate, item.low, item.high),
                _evidence(item.level, signal),
                signal.state if item.period == signal.period else None,
            )
            for item in found
        ]
        watch = signal.watch
        level = "" if watch.level is None else f"-{watch.level}"
        key = "-".join(part for part in (watch.metric.value, watch.subject) if part) + level
        title = signal.name[0].upper() + signal.name[1:]
        definition = METRIC_DEFINITIONS[watch.metric]
        is_main = not watch.subject or signal.state in (State.ALERT, State.WATCH)
        yield Series(key, title, definition, tuple(points), low, high, is_main)


def _evidence(level: float, signal: Signal) -> float:
    return max(0.0, level / signal.alarm) if signal.alarm > 0 else 0.0


def _limits(metric: Metric, tolerances: Tolerances) -> tuple[float | None, float | None]:
    """Return what the plan tolerates of a value; None where it bounds a change alone."""
    if metric is Metric.CALIBRATION_SLOPE:
        return tolerances.calibration_slope_min, tolerances.calibration_slope_max
    if metric is Metric.CALIBRATION_INTERCEPT:
        return -tolerances.calibration_intercept_max, tolerances.calibration_intercept_max
    if metric in GAPS:
        return -tolerances.group_gap_max, tolerances.group_gap_max
    if metric in (Metric.SENTINEL, Metric.SCORES):
        return None, tolerances.wasserstein_min
    return None, None
