"""What one shadow study showed: sums that the checks read, never patients' values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.privacy.mechanism import DpSgdSteps
from simulations.audit.canaries import Canaries


@dataclass(frozen=True)
class Block:
    """The noise in one parameter tensor, over all steps.

    Args:
        name: of the parameter.
        count: number of noise values.
        total: their sum, in units of the claimed standard deviation.
        squares: the sum of their squares, in its square.
    """

    name: str
    count: int
    total: float
    squares: float


@dataclass(frozen=True)
class StudyEvidence:
    """One shadow study.

    Args:
        cohort: number of patients, canaries among them.
        records: the mechanism record that each round returned.
        planned: the record that each round was asked for.
        noised_steps: for each round, how often the optimiser stepped.
        blocks: the noise by parameter tensor.
        noise: float64 [steps, coordinates], residual noise in units of the claimed standard
            deviation, at some coordinates.
        rounds: int64 [steps], of `noise`.
        batch_sizes: int64 [steps].
        inclusions: int8 [steps, included canaries], how often a step held each.
        share_max: the largest norm of a batch's clipped sum, a patient, in clipping norms.
        canaries: drawn.
        scores: float64 [canaries], log-likelihood ratios.
        update_errors: for each round, the distance of the released update from the replay of the
            noised sums alone, in units of the update.
    """

    cohort: int
    records: tuple[DpSgdSteps, ...]
    planned: tuple[DpSgdSteps, ...]
    noised_steps: tuple[int, ...]
    blocks: tuple[Block, ...]
    noise: npt.NDArray[np.float64]
    rounds: npt.NDArray[np.int64]
    batch_sizes: npt.NDArray[np.int64]
    inclusions: npt.NDArray[np.int8]
    share_max: float
    canaries: Canaries
    scores: npt.NDArray[np.float64]
    update_errors: tuple[float, ...]
