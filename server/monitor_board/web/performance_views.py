"""From newest outcome reports to the model page, the fairness page and a site's performance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from common.study.monitoring import Monitoring
from common.study.plan import CategoricalFeature, StudyPlan
from common.study.report_tensors import ReportKind
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.plan_watches import GAPS
from server.monitor_board.signal_types import Signal, SiteSignals, State
from server.monitor_board.statistics.curves import reliability_points, threshold_points
from server.monitor_board.statistics.fairness_estimates import (
    GroupFairness,
    LevelGap,
    estimate_fairness,
)
from server.monitor_board.statistics.intervals import Estimate
from server.monitor_board.statistics.noisy_counts import NoisyCounts, shown_count
from server.monitor_board.statistics.performance_estimates import estimate_performance
from server.monitor_board.statistics.score_scale import ScoreScale
from server.monitor_board.web.definitions import (
    CRITERION_TITLES,
    PERFORMANCE_TITLES,
    WORST_TITLES,
)
from server.monitor_board.web.views import (
    ALL_SITES,
    FairnessRow,
    FairnessView,
    ModelVersion,
    ModelView,
    Number,
    Performance,
    ReliabilityBin,
    RocPoint,
    WorstGroup,
)

_OVERALL: Final = "overall"


def newest_outcomes(reports: Sequence[KeptReport]) -> dict[str, KeptReport]:
    """Return each site's newest outcome report, by site id; the periods' labels sort by time."""
    found: dict[str, KeptReport] = {}
    for report in reports:
        if report.kind is not ReportKind.OUTCOME:
            continue
        before = found.get(report.site_id)
        if before is None or (report.period, report.sequence) >= (before.period, before.sequence):
            found[report.site_id] = report
    return found


def sum_of(tensors: Sequence[NoisyCounts]) -> NoisyCounts:
    """Return the sum of independent noisy counts."""
    total = np.sum([tensor.values for tensor in tensors], axis=0)
    return NoisyCounts(total, math.sqrt(sum(tensor.sd**2 for tensor in tensors)))


def performance_of(
    overall: NoisyCounts, monitoring: Monitoring, *, title: str, period: str
) -> Performance:
    """Return performance, reliability diagram and ROC curve of one tensor `overall`."""
    scale = ScoreScale(monitoring.score_edges, monitoring.threshold)
    [found] = estimate_performance([overall], scale)
    bounds = (0.0, *monitoring.score_edges, 1.0)
    patients = np.asarray(overall.values, dtype=np.float64).sum(axis=0)
    reliability = [
        ReliabilityBin(low, high, point.score, number(point.observed), shown_count(float(count)))
        for low, high, point, count in zip(
            bounds[:-1], bounds[1:], reliability_points(overall, scale), patients, strict=True
        )
    ]
    roc = [
        RocPoint(point.threshold, _complement(point.specificity), number(point.sensitivity))
        for point in threshold_points(overall, scale)
    ]
    metrics = [
        (words, _shown_estimate(name, getattr(found, name)))
        for name, words in PERFORMANCE_TITLES.items()
    ]
    return Performance(title, period, tuple(reliability), tuple(roc), tuple(metrics))


def model_view(plan: StudyPlan, reports: Sequence[KeptReport]) -> ModelView:
    """Return the model page: versions, and the newest one in all sites together."""
    versions = _versions(reports)
    if plan.monitoring is None or not versions:
        return ModelView(versions, ())
    newest = versions[0].version
    # An implausible report enters no sum.
    of_model = [
        report for report in reports if report.model_version == newest and not report.is_flagged
    ]
    outcomes = newest_outcomes(of_model).values()
    period = max((report.period for report in outcomes), default="")
    parts = [
        ("newest outcomes", period, [item for item in outcomes if item.period == period]),
        ("reference", "before use", [x for x in of_model if x.kind is ReportKind.REFERENCE]),
    ]
    return ModelView(
        versions,
        tuple(
            performance_of(
                sum_of([report.tensors[_OVERALL] for report in found]),
                plan.monitoring,
                title=f"All sites together ({len(found)} reported), {name}",
                period=when,
            )
            for name, when, found in parts
            if found
        ),
    )


def fairness_view(
    plan: StudyPlan,
    outcomes: Mapping[str, KeptReport],
    sites: Sequence[SiteSignals],
    pooled: SiteSignals | None,
) -> FairnessView:
    """Return every gap of each site's newest outcome report, and of all of a period together."""
    monitoring = plan.monitoring
    if monitoring is None:
        return FairnessView(0.0, ())
    scale = ScoreScale(monitoring.group_edges, monitoring.threshold)
    signals = {(str(site.site_id), *key): signal for site in sites for key, signal in _gaps(site)}
    if pooled is not None:
        signals |= {(ALL_SITES, *key): signal for key, signal in _gaps(pooled)}
    period = max((report.period for report in outcomes.values()), default="")
    together = [
        report for report in outcomes.values() if report.period == period and not report.is_flagged
    ]
    rows: list[FairnessRow] = []
    worst: list[WorstGroup] = []
    for feature in _groups(plan):
        name = f"groups/{feature.name}"
        places = [(site_id, item.period) for site_id, item in outcomes.items()]
        tensors = [item.tensors[name] for item in outcomes.values()]
        if len(together) > 1:
            places.insert(0, (ALL_SITES, period))
            tensors.insert(0, sum_of([report.tensors[name] for report in together]))
        if not tensors:
            continue
        fairness = estimate_fairness(tensors, scale)
        for (where, when), found in zip(places, fairness, strict=True):
            rows += [_row(where, when, feature, gap, signals) for gap in found.gaps]
        (where, when), found = places[0], fairness[0]
        if where == ALL_SITES or len(places) == 1:
            worst += _worst_groups(where, when, feature, found)
    rows.sort(key=lambda row: row.where != ALL_SITES)
    return FairnessView(monitoring.tolerances.group_gap_max, tuple(rows), tuple(worst))


def number(estimate: Estimate) -> Number:
    """Return an estimate as it is shown."""
    return Number(estimate.value, estimate.low, estimate.high)


def _row(
    where: str,
    period: str,
    feature: CategoricalFeature,
    gap: LevelGap,
    signals: Mapping[tuple[str, str, str, int | None], Signal],
) -> FairnessRow:
    signal = signals.get((where, gap.criterion, feature.name, gap.level))
    state = signal.state if signal is not None else None
    return FairnessRow(
        where=where,
        period=period,
        feature=feature.name,
        level=_level_name(feature, gap.level),
        metric=CRITERION_TITLES[gap.criterion],
        number=number(gap.gap),
        p_value=gap.p_adjusted,
        state=State.INSUFFICIENT if gap.gap.value is None else state,
    )


def _worst_groups(
    where: str, period: str, feature: CategoricalFeature, found: GroupFairness
) -> list[WorstGroup]:
    return [
        WorstGroup(
            where=where,
            period=period,
            feature=feature.name,
            level=_level_name(feature, level),
            metric=WORST_TITLES[criterion],
            number=number(getattr(found.levels[level], criterion)),
            difference=found.largest_differences[criterion],
        )
        for criterion, level in found.worst_levels.items()
        if level is not None
    ]


def _level_name(feature: CategoricalFeature, level: int) -> str:
    return feature.levels[level] if level < len(feature.levels) else "missing"


def _gaps(site: SiteSignals) -> list[tuple[tuple[str, str, int | None], Signal]]:
    return [
        ((GAPS[item.watch.metric], item.watch.subject, item.watch.level), item)
        for item in site.signals
        if item.watch.metric in GAPS
    ]


def _groups(plan: StudyPlan) -> list[CategoricalFeature]:
    features = {feature.name: feature for feature in plan.features}
    named = [features[group.feature] for group in plan.fairness_groups]
    return [feature for feature in named if isinstance(feature, CategoricalFeature)]


def _versions(reports: Sequence[KeptReport]) -> tuple[ModelVersion, ...]:
    found: dict[str, list[KeptReport]] = {}
    for report in sorted(reports, key=lambda item: item.received_at_s):
        found.setdefault(report.model_version, []).append(report)
    # The newest is the one of which the newest report tells.
    ordered = sorted(found.items(), key=lambda item: item[1][-1].received_at_s, reverse=True)
    versions = []
    for place, (version, members) in enumerate(ordered):
        periods = sorted(x.period for x in members if x.kind is not ReportKind.REFERENCE)
        first, last = (periods[0], periods[-1]) if periods else ("–", "–")
        versions.append(ModelVersion(version, first, last, len(members), is_newest=place == 0))
    return tuple(versions)


def _complement(estimate: Estimate) -> Number:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return Number(None)
    return Number(1 - estimate.value, 1 - estimate.high, 1 - estimate.low)


def _shown_estimate(name: str, estimate: Estimate) -> Number:
    is_count = name in ("patients", "events")
    if is_count and (estimate.value is None or shown_count(estimate.value) is None):
        return Number(None)
    return number(estimate)
