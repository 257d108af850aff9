"""The points of a report's plots: reliability, ROC, decision curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.monitor_board.statistics.intervals import Estimate, enough_patients, proportion_interval
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.statistics.performance import Proportion
from server.monitor_board.statistics.performance_estimates import performance_intervals
from server.monitor_board.statistics.projection import project_counts
from server.monitor_board.statistics.score_scale import ScoreScale, bin_means


@dataclass(frozen=True)
class ReliabilityPoint:
    """One score bin.

    Args:
        score: mean prediction of its patients, estimated from the counts.
        share: of all patients.
        observed: share of its patients with the outcome.
    """

    score: float
    share: float
    observed: Estimate


@dataclass(frozen=True)
class ThresholdPoint:
    """The model used at one edge.

    Args:
        alert_to_all: the net benefit of alerting for everybody; for nobody it is 0.
    """

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    net_benefit: Estimate
    alert_to_all: float | None


def reliability_points(overall: NoisyCounts, scale: ScoreScale) -> tuple[ReliabilityPoint, ...]:
    """Return the reliability diagram's points; bins with too few patients are insufficient."""
    counts = np.asarray(overall.values, dtype=np.float64)
    totals = counts.sum(axis=0)
    shares = project_counts(totals)
    by_bin = np.swapaxes(counts, 0, 1)[:, :, None]
    event = np.asarray([[False], [True]])
    observed = proportion_interval(by_bin, Proportion(event, ~event), overall.sd)
    enough = enough_patients(totals, noise_sd=overall.sd * np.sqrt(2.0))
    estimates = observed.judged(enough, width_max=1.0).estimates()
    return tuple(
        ReliabilityPoint(float(score), float(share), estimate)
        for score, share, estimate in zip(
            bin_means(totals, scale.edges), shares / shares.sum(), estimates, strict=True
        )
    )


def threshold_points(overall: NoisyCounts, scale: ScoreScale) -> tuple[ThresholdPoint, ...]:
    """Return sensitivity, specificity and net benefit at every edge: ROC and decision curve.

    Noise can make the ROC curve fall in places; it is shown as it is, with its intervals.
    """
    counts = np.asarray(overall.values, dtype=np.float64)[None]
    found = []
    for edge in scale.edges:
        named = performance_intervals(
            counts, np.asarray([overall.sd]), ScoreScale(scale.edges, edge)
        )
        prevalence, sensitivity, specificity, benefit = (
            named[name].estimates()[0]
            for name in ("prevalence", "sensitivity", "specificity", "net_benefit")
        )
        events, odds = prevalence.value, edge / (1 - edge)
        to_all = None if events is None else events - (1 - events) * odds
        found.append(ThresholdPoint(edge, sensitivity, specificity, benefit, to_all))
    return tuple(found)
