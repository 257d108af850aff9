"""Plan rules about monitoring reports. Numbers are in `rules`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from common.errors import AccountingError
from common.study.plan import NumericFeature, StudyPlan
from common.study.problems import Problem, shorten
from common.study.report_tensors import ReportKind, report_tensors


def rule_edges_rise(plan: StudyPlan) -> Iterator[Problem]:
    """Score edges and group edges rise strictly."""
    if plan.monitoring is None:
        return
    for name in ("score_edges", "group_edges"):
        edges: Sequence[float] = getattr(plan.monitoring, name)
        if not _rises(edges):
            yield Problem(
                f"monitoring.{name}",
                shorten(list(edges)),
                "edges that rise, none twice",
                "sort the edges and remove copies",
            )


def rule_group_edges_are_score_edges(plan: StudyPlan) -> Iterator[Problem]:
    """Every group edge is a score edge, and the threshold is an edge of both."""
    monitoring = plan.monitoring
    if monitoring is None:
        return
    foreign = [edge for edge in monitoring.group_edges if edge not in monitoring.score_edges]
    if foreign:
        yield Problem(
            "monitoring.group_edges",
            shorten(foreign),
            f"edges among score_edges = {shorten(list(monitoring.score_edges))}",
            "take group_edges from score_edges: a group's bins are score bins put together",
        )
    for name in ("score_edges", "group_edges"):
        if monitoring.threshold not in getattr(monitoring, name):
            yield Problem(
                "monitoring.threshold",
                f"{monitoring.threshold}, which is not among {name}",
                "an edge of score_edges and of group_edges",
                f"add it to {name}: rates at the threshold are counted in whole bins",
            )


def rule_sentinel_edges_fit(plan: StudyPlan) -> Iterator[Problem]:
    """Own edges are of a numeric sentinel, once, rise strictly, and lie inside its clip bounds."""
    monitoring = plan.monitoring
    if monitoring is None:
        return
    numeric = {item.name: item for item in plan.features if isinstance(item, NumericFeature)}
    seen: set[str] = set()
    for place, item in enumerate(monitoring.sentinel_edges):
        where = f"monitoring.sentinel_edges[{place}]"
        feature = numeric.get(item.feature)
        is_sentinel = item.feature in monitoring.sentinel_features
        if feature is None or not is_sentinel or item.feature in seen:
            yield Problem(
                f"{where}.feature",
                item.feature + (", named before" if item.feature in seen else ""),
                "a numeric feature among sentinel_features, once",
                "correct the name or remove these edges; levels need none",
            )
        elif not _rises((feature.clip[0], *item.edges, feature.clip[1])):
            yield Problem(
                f"{where}.edges",
                shorten(list(item.edges)),
                f"edges that rise, inside the clip bounds {list(feature.clip)}",
                "sort the edges, and remove copies and what lies outside",
            )
        seen.add(item.feature)


def rule_report_noise_can_be_calibrated(plan: StudyPlan) -> Iterator[Problem]:
    """Some noise keeps both reports of a period inside epsilon_per_report and delta."""
    try:
        report_tensors(plan, ReportKind.CASE_MIX)
    except AccountingError as error:
        yield Problem("monitoring.epsilon_per_report", error.arrived, error.expected, error.todo)


def _rises(edges: Sequence[float]) -> bool:
    return all(one < other for one, other in pairwise(edges))
