"""Each test's course over all periods and sites, from kept reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.study.monitoring import Monitoring, Tolerances
from common.study.plan import NumericFeature, StudyPlan
from common.study.report_periods import REFERENCE, parse_period, period_at
from common.study.report_tensors import ReportKind, report_tensors, sentinel_edges
from server.monitor_board.alarm_levels import alarm_levels
from server.monitor_board.comparisons import (
    change_to_outside,
    distance_from_past,
    fall_from_past,
    outside,
    prevalence_against_past,
    share_against_past,
)
from server.monitor_board.plan_watches import GAPS, plan_watches
from server.monitor_board.report_batches import (
    all_shares,
    gap_estimates,
    label_shares,
    outcome_estimates,
    present_shares,
    score_shares,
)
from server.monitor_board.report_panel import ReportPanel, Stack
from server.monitor_board.signal_types import Metric, Watch
from server.monitor_board.statistics.estimates import Estimates
from server.monitor_board.statistics.noisy_shares import Floats, NoisyShares
from server.monitor_board.statistics.score_scale import ScoreScale
from server.monitor_board.statistics.sequential import (
    Batch,
    Compare,
    Comparison,
    Track,
    W,
    compare_all,
    follow,
    follow_alone,
    look_back,
)

_OVERALL: Final = "overall"


@dataclass(frozen=True)
class Course:
    """One test at all sites, all of them together in the last column.

    Args:
        quarter: the last one that is over, of which the look is; empty when there is none.
    """

    watch: Watch
    periods: tuple[str, ...]
    track: Track
    quarter: str
    look: Comparison | None


def build_courses(plan: StudyPlan, panel: ReportPanel) -> tuple[Course, ...]:
    """Return the course of each of the plan's tests."""
    if plan.monitoring is None:
        return ()
    builder = _Builder(plan, plan.monitoring, panel)
    return tuple(builder.course(watch) for watch in plan_watches(plan))


def last_quarter(periods: Sequence[str], plan: StudyPlan) -> tuple[str, tuple[int, ...]]:
    """Return the last quarter that is over, and the places of its periods.

    A week belongs to the quarter in which it begins. A quarter is over when its last period or one
    of a later quarter is reported.
    """
    if plan.monitoring is None:
        return "", ()
    places: dict[str, list[int]] = {}
    over = ""
    for place, label in enumerate(periods):
        period = parse_period(label, plan.monitoring.every)
        quarter = period_at(period.begin_s, "quarter").label
        if places and quarter not in places:
            over = next(reversed(places))
        places.setdefault(quarter, []).append(place)
        if period_at(period.end_s, "quarter").label != quarter:
            over = quarter
    return over, tuple(places.get(over, ()))


def gaps_in_deviations(middles: Floats, counts: Floats) -> Floats:
    """Return the distances of neighbouring bins' middles in deviations of the counts [bins]."""
    weight = np.maximum(counts, 0.0) + 1e-9
    mean = np.average(middles, weights=weight)
    gaps = np.diff(middles)
    variance = np.average((middles - mean) ** 2, weights=weight)
    # Patients within one bin still differ: by a twelfth of its width's square, if evenly.
    deviation = np.sqrt(variance + np.min(gaps) ** 2 / 12)
    scaled: Floats = gaps / deviation
    return scaled


def bin_middles(edges: Sequence[float], low: float, high: float) -> Floats:
    """Return the middles of the bins that inner edges make between two bounds."""
    bounds = np.array([low, *edges, high])
    middles: Floats = (bounds[1:] + bounds[:-1]) / 2
    return middles


class _Builder:
    """Turns a panel into courses; a tensor's estimates are made once for all tests of it."""

    def __init__(self, plan: StudyPlan, monitoring: Monitoring, panel: ReportPanel) -> None:
        self._plan, self._monitoring, self._panel = plan, monitoring, panel
        self._tolerances: Tolerances = monitoring.tolerances
        self._alarm = alarm_levels(plan).sequential
        self._shapes = {
            (kind, tensor.name): tensor.shape
            for kind in ReportKind
            for tensor in report_tensors(plan, kind)
        }
        self._tensor = ""
        self._stacked: dict[tuple[ReportKind, str, bool], Stack] = {}
        self._outcomes: list[Mapping[Metric, Batch[Estimates]]] = []
        self._gaps: dict[str, list[Mapping[tuple[Metric, int], Batch[Estimates]]]] = {}

    def course(self, watch: Watch) -> Course:
        if watch.metric in _OF_SHARES:
            return self._course_of_shares(watch)
        reference, *reports = self._estimates_of(watch)
        if watch.metric in GAPS:
            gap = outside(-self._tolerances.group_gap_max, self._tolerances.group_gap_max)
            found = [
                compare_all(batch.items, batch.items, batch.is_usable, batch.is_pooled, compare=gap)
                for batch in reports
            ]
            track = follow_alone(found, alarm=self._alarm)
            return Course(watch, self._panel.periods[watch.kind], track, "", None)
        if watch.metric is Metric.AUROC:
            fall = fall_from_past(self._tolerances.auroc_drop_max)
            return self._followed(watch, reports, reference, compare=fall, compare_look=fall)
        bounds = self._calibration_bounds(watch.metric)
        return self._followed(
            watch,
            reports,
            reference,
            compare=change_to_outside(*bounds),
            compare_look=outside(*bounds),
        )

    def _course_of_shares(self, watch: Watch) -> Course:
        tolerances = self._tolerances
        name = watch.tensor if watch.subject else _OVERALL
        is_of_model = not watch.subject
        reference = self._stack(name, ReportKind.REFERENCE, REFERENCE, is_of_model=is_of_model)
        if watch.metric is Metric.SENTINEL:
            gaps = self._sentinel_gaps(watch.subject, reference)
            compare = distance_from_past(tolerances.wasserstein_min, gaps)
        elif watch.metric is Metric.SCORES:
            middles = bin_middles(self._monitoring.score_edges, 0.0, 1.0)
            gaps = gaps_in_deviations(middles, reference.counts.sum(axis=(0, 1)))
            compare = distance_from_past(tolerances.wasserstein_min, gaps)
        elif watch.metric is Metric.MISSING:
            compare = share_against_past(tolerances.missing_share_change_max, -1)
        else:
            compare = prevalence_against_past(tolerances.calibration_intercept_max)
        shares = _OF_SHARES[watch.metric]
        reports = [
            shares(self._stack(watch.tensor, watch.kind, period, is_of_model=is_of_model))
            for period in self._panel.periods[watch.kind]
        ]
        return self._followed(
            watch, reports, shares(reference), compare=compare, compare_look=compare
        )

    def _followed(
        self,
        watch: Watch,
        reports: Sequence[Batch[W]],
        reference: Batch[W],
        *,
        compare: Compare[W],
        compare_look: Compare[W],
    ) -> Course:
        periods = self._panel.periods[watch.kind]
        track = follow(reports, reference, compare=compare, alarm=self._alarm)
        quarter, places = last_quarter(periods, self._plan)
        look = None
        if places:
            of_quarter = [reports[place] for place in places]
            look = look_back(of_quarter, reference, compare=compare_look)
        return Course(watch, periods, track, quarter, look)

    def _calibration_bounds(self, metric: Metric) -> tuple[float, float]:
        tolerances = self._tolerances
        if metric is Metric.CALIBRATION_SLOPE:
            return tolerances.calibration_slope_min, tolerances.calibration_slope_max
        return -tolerances.calibration_intercept_max, tolerances.calibration_intercept_max

    def _sentinel_gaps(self, name: str, reference: Stack) -> Floats | None:
        feature = next(item for item in self._plan.features if item.name == name)
        if not isinstance(feature, NumericFeature):
            return None
        middles = bin_middles(sentinel_edges(self._plan, feature), *feature.clip)
        return gaps_in_deviations(middles, reference.counts.sum(axis=0)[:-1])

    def _estimates_of(self, watch: Watch) -> list[Batch[Estimates]]:
        """Return the reference's and then each period's estimates."""
        if watch.level is None:
            if not self._outcomes:
                scale = ScoreScale(self._monitoring.score_edges, self._monitoring.threshold)
                self._outcomes = [outcome_estimates(item, scale) for item in self._stacks(watch)]
            return [found[watch.metric] for found in self._outcomes]
        if watch.tensor not in self._gaps:
            scale = ScoreScale(self._monitoring.group_edges, self._monitoring.threshold)
            found = [gap_estimates(item, scale) for item in self._stacks(watch)]
            self._gaps[watch.tensor] = found
        return [found[watch.metric, watch.level] for found in self._gaps[watch.tensor]]

    def _stacks(self, watch: Watch) -> list[Stack]:
        asked = [(ReportKind.REFERENCE, REFERENCE)]
        asked += [(watch.kind, period) for period in self._panel.periods[watch.kind]]
        return [self._stack(watch.tensor, *item, is_of_model=True) for item in asked]

    def _stack(self, tensor: str, kind: ReportKind, period: str, *, is_of_model: bool) -> Stack:
        """Return a tensor of all sites; a sentinel's two tests come one after the other."""
        if self._tensor != tensor:
            self._tensor, self._stacked = tensor, {}
        key = kind, period, is_of_model
        if key not in self._stacked:
            shape = self._shapes[kind, tensor]
            self._stacked[key] = self._panel.stack(
                tensor, shape, kind, period, is_of_model=is_of_model
            )
        return self._stacked[key]


_OF_SHARES: Final[dict[Metric, Callable[[Stack], Batch[NoisyShares]]]] = {
    Metric.SENTINEL: present_shares,
    Metric.MISSING: all_shares,
    Metric.SCORES: score_shares,
    Metric.PREVALENCE: label_shares,
}
