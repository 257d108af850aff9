"""Which tests a plan asks for: the same at every site, known before the first report."""

from __future__ import annotations

from typing import Final

from common.study.plan import CategoricalFeature, StudyPlan
from common.study.report_tensors import ReportKind, TensorFamily, level_count
from server.monitor_board.signal_types import Metric, Watch

GAPS: Final = {
    Metric.SENSITIVITY_GAP: "sensitivity",
    Metric.FALSE_POSITIVE_GAP: "false_positive_rate",
    Metric.PREDICTIVE_VALUE_GAP: "ppv",
    Metric.EXCESS_RISK_GAP: "excess_risk",
}
"""Gaps that are tested, and their criterion. A gap in alert rates is shown and not tested: groups
with unlike risk should have unlike alert rates."""


def plan_watches(plan: StudyPlan) -> tuple[Watch, ...]:
    """Return the tests, in the order in which a page shows them."""
    monitoring = plan.monitoring
    if monitoring is None:
        return ()
    features = {feature.name: feature for feature in plan.features}
    found = []
    for name in monitoring.sentinel_features:
        tensor = f"{TensorFamily.SENTINELS.value}/{name}"
        found.append(Watch(Metric.SENTINEL, ReportKind.CASE_MIX, tensor, name))
        if features[name].missing != "none_allowed":
            found.append(Watch(Metric.MISSING, ReportKind.CASE_MIX, tensor, name))
    found.append(Watch(Metric.SCORES, ReportKind.CASE_MIX, TensorFamily.SCORES.value))
    found += [
        Watch(metric, ReportKind.OUTCOME, TensorFamily.OVERALL.value)
        for metric in (
            Metric.PREVALENCE,
            Metric.AUROC,
            Metric.CALIBRATION_SLOPE,
            Metric.CALIBRATION_INTERCEPT,
        )
    ]
    for group in plan.fairness_groups:
        feature = features[group.feature]
        if not isinstance(feature, CategoricalFeature):
            continue
        tensor = f"{TensorFamily.GROUPS.value}/{feature.name}"
        levels = level_count(feature)
        # Of two levels, each one's gap to the other is the same gap.
        found += [
            Watch(metric, ReportKind.OUTCOME, tensor, feature.name, level)
            for metric in GAPS
            for level in range(1 if levels == 2 else levels)
        ]
    return tuple(found)
