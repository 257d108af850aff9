"""What no honest report looks like: found in the noisy counts alone, and flagged for a person.

A flagged report keeps its place and is shown by itself; it enters no pool, neither of all sites
nor of its site's past. A lie that is cleverer than these checks is not found, and cryptography
cannot make a site tell the truth. Each check's false alarms are below one in a million
reports (six standard deviations, or the probability stated).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import chi2

from server.monitor_board.statistics.noisy_counts import NoisyCounts

_DEVIATIONS: Final = 6.0
_CHANCE: Final = 1e-6


@dataclass(frozen=True)
class Flag:
    """One finding: the name of the check, and words without a count of the report."""

    check: str
    words: str


def find_flags(
    tensors: Mapping[str, NoisyCounts],
    *,
    earlier: Sequence[Mapping[str, NoisyCounts]],
    patients_max: float | None,
) -> tuple[Flag, ...]:
    """Return what is implausible in one report.

    Args:
        tensors: of the report; every patient is in one cell of each, so all totals are one number.
        earlier: tensors of the site's other reports of the same kind.
        patients_max: the most patients the report can be about, if the board was told.
    """
    if not tensors:
        return ()
    names = list(tensors)
    totals = np.array([float(tensors[name].values.sum()) for name in names])
    sd = np.array([tensors[name].sd * math.sqrt(tensors[name].values.size) for name in names])
    found = (
        _totals_differ(totals, sd),
        _no_noise(totals, sd),
        _below_zero(tensors),
        _too_many(totals, sd, patients_max),
        _same_noise(tensors, totals, sd, earlier),
    )
    return tuple(flag for flag in found if flag is not None)


def _totals_differ(totals: np.ndarray, sd: np.ndarray) -> Flag | None:
    """Cochran's Q of the totals, each an estimate of the one number of patients."""
    if len(totals) < 2 or (sd <= 0).any():
        return None
    weights = 1 / sd**2
    mean = (weights * totals).sum() / weights.sum()
    statistic = float((weights * (totals - mean) ** 2).sum())
    if chi2.sf(statistic, len(totals) - 1) >= _CHANCE:
        return None
    return Flag("totals", "its tensors count different numbers of patients, beyond their noise")


def _no_noise(totals: np.ndarray, sd: np.ndarray) -> Flag | None:
    """All totals alike: with the noise of the plan they never are."""
    if (totals != totals[0]).any() or _chance_of_equality(sd, draws=1) >= _CHANCE:
        return None
    return Flag("no-noise", "its tensors agree to the last patient, so it has not the plan's noise")


def _below_zero(tensors: Mapping[str, NoisyCounts]) -> Flag | None:
    if all(item.values.min() >= -_DEVIATIONS * item.sd for item in tensors.values()):
        return None
    return Flag("negative", "a cell is further below zero than six deviations of its noise")


def _too_many(totals: np.ndarray, sd: np.ndarray, patients_max: float | None) -> Flag | None:
    if patients_max is None or (sd <= 0).any():
        return None
    weights = 1 / sd**2
    mean = (weights * totals).sum() / weights.sum()
    if mean - _DEVIATIONS / math.sqrt(weights.sum()) <= patients_max:
        return None
    return Flag("cohort", "it counts more patients than the site can have")


def _same_noise(
    tensors: Mapping[str, NoisyCounts],
    totals: np.ndarray,
    sd: np.ndarray,
    earlier: Sequence[Mapping[str, NoisyCounts]],
) -> Flag | None:
    """Reused noise cancels in the difference to another report: all totals then differ alike."""
    if _chance_of_equality(sd, draws=2) >= _CHANCE / max(1, len(earlier)):
        return None
    for before in earlier:
        others = np.array([float(before[name].values.sum()) for name in tensors])
        if (totals - others == totals[0] - others[0]).all():
            return Flag("same-noise", "it has the noise of an earlier report of the site")
    return None


def _chance_of_equality(sd: np.ndarray, *, draws: int) -> float:
    """Return a bound on the probability that all totals (or differences) are equal by chance.

    The greatest probability of one value of a (nearly) normal integer is 1 / (sqrt(2 pi) sd).
    """
    if len(sd) < 2:
        return 1.0
    peaks = [min(1.0, 1 / (math.sqrt(2 * math.pi * draws) * max(s, 1e-9))) for s in sd]
    return float(np.prod(sorted(peaks)[:-1]))  # the one tensor that the others must equal is free
