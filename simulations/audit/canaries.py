"""Canaries: patients whose gradient is the clipping norm along one coordinate of their own.

No patient can move a sum further, and no canary hides another, so these are the strongest canaries
there are for an auditor who sees each step (Nasr et al. 2021, arXiv:2101.04535, call them Dirac
gradients). A canary is a row of the cohort like any other: the product samples it, or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from site_client.features.matrix import FeatureMatrix
from site_client.training.clipped_sum import Batch

_FIRST_MARK: Final = 2.0
"""Features lie in [-1, 1]: a first column from 2 on names a canary, exactly up to 16 million."""


@dataclass(frozen=True)
class Canaries:
    """The canaries of one shadow study.

    Args:
        coordinate: int64 [canaries], of the flat parameters, each its own.
        is_included: bool [canaries], fair coins.
    """

    coordinate: npt.NDArray[np.int64]
    is_included: npt.NDArray[np.bool_]


def draw_canaries(count: int, parameters: int, rng: np.random.Generator) -> Canaries:
    """Return canaries on different coordinates, each in the cohort by a fair coin.

    Args:
        count: at most `parameters`.
        parameters: number of trainable parameters.
        rng: of the simulation.
    """
    return Canaries(rng.permutation(parameters)[:count], rng.random(count) < 0.5)


def add_canaries(patients: FeatureMatrix, canaries: Canaries) -> FeatureMatrix:
    """Return the cohort with the included canaries as rows at its end."""
    included = np.flatnonzero(canaries.is_included)
    rows = np.zeros((len(included), patients.x.shape[1]), dtype=np.float32)
    rows[:, 0] = _FIRST_MARK + included
    return FeatureMatrix(
        patients.columns,
        np.vstack([patients.x, rows]),
        np.append(patients.y, np.zeros(len(included), np.float32)),
        np.append(patients.part, np.zeros(len(included), np.int64)),
    )


def part_canaries(batch: Batch) -> tuple[Batch, npt.NDArray[np.int64]]:
    """Return a batch's patients, and which canaries are in it [canaries in the batch]."""
    first = batch.x[:, 0]
    is_canary = first >= _FIRST_MARK
    numbers = (first[is_canary] - _FIRST_MARK).numpy().astype(np.int64)
    return batch.of(~is_canary), numbers


def log_likelihood_ratio(
    observed: npt.NDArray[np.float64], *, noise_multiplier: float, sampling_probability: float
) -> npt.NDArray[np.float64]:
    """Return how much likelier each observation is with the canary in the cohort than without.

    The most powerful score there is for the claimed mechanism (Neyman and Pearson 1933).

    Args:
        observed: noised minus known sum at each canary's coordinate, in clipping norms.
        noise_multiplier, sampling_probability: of the mechanism record.
    """
    absent = -np.inf if sampling_probability >= 1 else np.log1p(-sampling_probability)
    present = np.log(sampling_probability) + (2 * observed - 1) / (2 * noise_multiplier**2)
    ratio: npt.NDArray[np.float64] = np.logaddexp(absent, present)
    return ratio
