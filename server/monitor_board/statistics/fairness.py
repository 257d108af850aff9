"""How far apart a model's behaviour lies among the levels of a group: the largest difference.

Every function takes counts [..., levels, 2, bins] and gives, on exact counts, what fairlearn gives.
With few patients or much noise the largest difference is too large, the more so the more levels
there are: it is for showing. `group_intervals.py` has what can be tested.
"""

from __future__ import annotations

import numpy as np

from server.monitor_board.statistics.performance import proportions
from server.monitor_board.statistics.projection import Float


def level_rate(counts: Float, name: str, alert_bin: int) -> Float:
    """Return one of `proportions` for each level [..., levels]."""
    return proportions(counts.shape[-1], alert_bin)[name].of(counts)


def largest_difference(rates: Float) -> Float:
    """Return the highest less the lowest rate over levels; nan levels do not count."""
    return np.asarray(np.nanmax(rates, axis=-1) - np.nanmin(rates, axis=-1))


def smallest_ratio(rates: Float) -> Float:
    """Return the lowest over the highest rate over levels; nan levels do not count."""
    return np.asarray(np.nanmin(rates, axis=-1) / np.nanmax(rates, axis=-1))


def demographic_parity_difference(counts: Float, alert_bin: int) -> Float:
    """Return the largest difference of alert rates."""
    return largest_difference(level_rate(counts, "alert_rate", alert_bin))


def demographic_parity_ratio(counts: Float, alert_bin: int) -> Float:
    """Return the lowest over the highest alert rate."""
    return smallest_ratio(level_rate(counts, "alert_rate", alert_bin))


def equal_opportunity_difference(counts: Float, alert_bin: int) -> Float:
    """Return the largest difference of sensitivities."""
    return largest_difference(level_rate(counts, "sensitivity", alert_bin))


def equalized_odds_difference(counts: Float, alert_bin: int) -> Float:
    """Return the larger of the largest differences of sensitivity and false positive rate."""
    return np.maximum(
        equal_opportunity_difference(counts, alert_bin),
        largest_difference(level_rate(counts, "false_positive_rate", alert_bin)),
    )


def predictive_parity_difference(counts: Float, alert_bin: int) -> Float:
    """Return the largest difference of positive predictive values."""
    return largest_difference(level_rate(counts, "ppv", alert_bin))
