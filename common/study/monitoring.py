"""The plan's part about what sites report of the promoted model after training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common import limits
from common.study.plan_types import Finite, Name, PlanPart, Positive

ScoreEdge = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SentinelEdges(PlanPart):
    """Public inner edges of a numeric sentinel's bins, in the feature's unit, rising.

    A value at an edge belongs to the bin above it. Without this, the bins have equal width between
    the clip bounds.
    """

    feature: Name
    edges: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=49, strict=False)]


class ReportShares(PlanPart):
    """How a period's privacy is divided; weights of its zCDP parameter rho, used in proportion."""

    sentinels: Share = 0.3
    scores: Share = 0.1
    group_scores: Share = 0.1
    overall: Share = 0.25
    groups: Share = 0.25


class Tolerances(PlanPart):
    """Effects that matter; a smaller change raises no alert, however significant.

    Args:
        auroc_drop_max: below the reference's AUROC.
        calibration_slope_min, calibration_slope_max: of the logistic recalibration.
        calibration_intercept_max: in magnitude, in logits.
        group_gap_max: between a group and all others, of a rate.
        wasserstein_min: distance of a sentinel from its reference, in reference deviations.
        missing_share_change_max: of a sentinel.
    """

    auroc_drop_max: Annotated[float, Field(gt=0, le=0.5)] = 0.03
    calibration_slope_min: Annotated[float, Field(gt=0, le=1)] = 0.8
    calibration_slope_max: Annotated[float, Field(ge=1, le=10)] = 1.25
    calibration_intercept_max: Annotated[float, Field(gt=0, le=5)] = 0.25
    group_gap_max: Annotated[float, Field(gt=0, le=1)] = 0.05
    wasserstein_min: Annotated[float, Field(gt=0, le=10)] = 0.1
    missing_share_change_max: Annotated[float, Field(gt=0, le=1)] = 0.05


class Monitoring(PlanPart):
    """What sites report about the promoted model, how often, and at what privacy.

    For each period a site makes two reports: the case mix when the period ends, and the outcome
    when the labels of its patients are complete; before them, once, the reference. Both reports of
    a period together spend `epsilon_per_report`, at the plan's delta, and there are at most
    `periods_max` periods.

    Args:
        sentinel_features: whose distribution is watched.
        bins: of a numeric sentinel without own edges.
        sentinel_edges: of those with own edges.
        score_edges, group_edges: inner edges of the predicted probability, rising; the group edges
            are among the score edges, and `threshold`, at which the model is used, among both.
        every: the length of a period; periods follow the calendar, in UTC.
        patients_min: a report whose noisy number of patients is lower does not leave the site.
        late_days: after which the board no longer waits for a report.
        mode: `sealed`: the board sees each site's report. `sum`: only the sum over at least
            `sum_sites_min` sites is ever opened.
    """

    sentinel_features: Annotated[tuple[Name, ...], Field(max_length=20, strict=False)]
    bins: Annotated[int, Field(ge=2, le=50)] = 10
    sentinel_edges: Annotated[tuple[SentinelEdges, ...], Field(max_length=20, strict=False)] = ()
    score_edges: Annotated[
        tuple[ScoreEdge, ...], Field(min_length=3, max_length=49, strict=False)
    ] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    group_edges: Annotated[
        tuple[ScoreEdge, ...], Field(min_length=1, max_length=9, strict=False)
    ] = (0.2, 0.5, 0.8)
    threshold: ScoreEdge = 0.5
    epsilon_per_report: Positive
    shares: ReportShares = ReportShares()
    every: Literal["week", "month", "quarter"] = "month"
    periods_max: Annotated[int, Field(ge=1, le=limits.PERIODS_MAX)] = 12
    patients_min: Annotated[int, Field(ge=20, le=1_000_000)] = 100
    late_days: Annotated[int, Field(ge=1, le=366)] = 14
    mode: Literal["sealed", "sum"] = "sealed"
    sum_sites_min: Annotated[int, Field(ge=3, le=limits.SITES_MAX)] = 5
    tolerances: Tolerances = Tolerances()
