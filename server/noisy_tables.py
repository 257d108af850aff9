"""Noisy contingency tables to mutual information, with what the noise alone would make of it.

The plug-in estimate from noised counts is too high, with or without a relation. How high, and how
far by chance, is found by making the same table without the relation many times: patients drawn
from the same shares, fresh noise of the stated size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.false_discovery import benjamini_hochberg
from common.study.contingency import LABELS, ContingencyTable
from server.simplex import project_to_simplex

_DRAWS: Final = 200
_Z_95: Final = 1.959964
_FALSE_SHARE_MAX: Final = 0.1
_SEED: Final = 20_261_121
"""Fixed: the same counts always give the same ranking. Nothing here is private."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoisyTable:
    """Summed counts of some sites.

    Args:
        candidates: places of the one or two features.
        counts: [classes, 2], a row for each class, or for each pair of classes; may be negative.
        noise: standard deviation of each.
    """

    candidates: tuple[int, ...]
    counts: Floats
    noise: float


@dataclass(frozen=True)
class Information:
    """Mutual information with the outcome, in nats.

    Args:
        value: the estimate less what noise and chance add; may be negative.
        low, high: 95 % interval for sampling of patients and DP noise together, from 0 up.
        p_value: how often noise and chance alone make an estimate as large.
    """

    value: float
    low: float
    high: float
    p_value: float


def split_tables(
    summed: npt.NDArray[np.int64], tables: Sequence[ContingencyTable], *, noise: float
) -> tuple[NoisyTable, ...]:
    """Return the tables in a release's cells [cells], in their order."""
    found: list[NoisyTable] = []
    first = 0
    for table in tables:
        cells = summed[first : first + table.cells].astype(np.float64)
        first += table.cells
        found.append(NoisyTable(table.candidates, cells.reshape(-1, LABELS), noise))
    return tuple(found)


def label_totals(tables: Sequence[NoisyTable]) -> Floats:
    """Return the number of patients of each outcome [2], at least 1, from what all tables say.

    Each table's column sums are an estimate whose variance grows with its number of classes.
    """
    weights = np.array([1 / len(table.counts) for table in tables])
    sums = np.stack([table.counts.sum(axis=0) for table in tables])
    totals: Floats = np.maximum((weights[:, None] * sums).sum(axis=0) / weights.sum(), 1.0)
    return totals


def estimate_information(table: NoisyTable, totals: Floats) -> Information:
    """Return the mutual information of a table's classes and the outcome.

    Args:
        table: noised.
        totals: patients of each outcome [2].
    """
    rng = np.random.default_rng([_SEED, *table.candidates])
    counts = denoise(table, totals)
    plain = mutual_information(counts)
    by_chance = _redrawn(_without_relation(counts, totals), totals, table.noise, rng)
    again = _redrawn(counts, totals, table.noise, rng)
    value = float(plain - by_chance.mean())
    spread = _Z_95 * float(again.std())
    return Information(
        value=value,
        low=max(value - spread, 0.0),
        high=max(value + spread, 0.0),
        p_value=_chance(float(plain), by_chance),
    )


def told_from_noise(p_values: Sequence[float]) -> tuple[bool, ...]:
    """Return whose relation is believed: of those, one in ten is expected to be noise at most."""
    stands = benjamini_hochberg(np.asarray(p_values), false_share_max=_FALSE_SHARE_MAX)
    return tuple(stands.tolist())


def joint_information(table: NoisyTable, totals: Floats) -> float:
    """Return the mutual information of a pair of candidates and the outcome, less the noise's."""
    rng = np.random.default_rng([_SEED, *table.candidates])
    counts = denoise(table, totals)
    by_chance = _redrawn(_without_relation(counts, totals), totals, table.noise, rng)
    return float(mutual_information(counts) - by_chance.mean())


def denoise(table: NoisyTable, totals: Floats) -> Floats:
    """Return the nearest non-negative counts [classes, 2] with the given patients per outcome."""
    return np.ascontiguousarray(project_to_simplex(table.counts.T, totals).T)


def mutual_information(counts: Floats) -> Floats:
    """Return the plug-in mutual information [...] in nats of counts [..., classes, 2]."""
    joint = counts / counts.sum(axis=(-2, -1), keepdims=True)
    apart = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    ratio = np.divide(joint, apart, out=np.ones_like(joint), where=joint > 0)
    found: Floats = (joint * np.log(ratio)).sum(axis=(-2, -1))
    return found


def label_entropy(totals: Floats) -> float:
    """Return the entropy of the outcome in nats: no candidate tells more."""
    shares = totals / totals.sum()
    return float(-(shares * np.log(shares)).sum())


def _without_relation(counts: Floats, totals: Floats) -> Floats:
    expected: Floats = counts.sum(axis=1, keepdims=True) / counts.sum() * totals
    return expected


def _chance(plain: float, by_chance: Floats) -> float:
    """Return the probability that an estimate without relation is as large as `plain`.

    Such estimates are close to a scaled chi-squared; its cube root is close to a normal (Wilson and
    Hilferty 1931), which reaches further than the draws.
    """
    mean, variance = float(by_chance.mean()), float(by_chance.var())
    if mean <= 0 or variance <= 0:  # one class: it tells nothing
        return 1.0
    slack = variance / (9 * mean * mean)
    deviation = (math.cbrt(max(plain, 0.0) / mean) - (1 - slack)) / math.sqrt(slack)
    return 0.5 * math.erfc(deviation / math.sqrt(2))


def _redrawn(counts: Floats, totals: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Return the plug-in information [draws] of patients drawn anew, with fresh noise."""
    shares = counts / counts.sum(axis=0)
    drawn = np.stack(
        [
            rng.multinomial(round(float(totals[label])), shares[:, label], size=_DRAWS)
            for label in range(LABELS)
        ],
        axis=1,
    ).astype(np.float64)
    if noise > 0:
        drawn += rng.normal(0, noise, drawn.shape)
    projected = project_to_simplex(drawn, np.broadcast_to(totals, drawn.shape[:-1]))
    return mutual_information(projected.swapaxes(-2, -1))
