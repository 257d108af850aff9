"""What a site releases so that numeric features can be scaled: noised sums over who trains, once.

Each patient's share is whole multiples of a fixed fine grid, cut towards zero, so that it is no
longer than the bound and sums are exact in integers: neither the order of summation nor anybody
else's row can show in their last bits. The noise is drawn in float64 and brought to the same grid;
the noised sums are then rounded to a public grid like training's, far below the noise's deviation.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from common.privacy.mechanism import GaussianVector
from common.study.plan import StudyPlan
from common.study.scaling import (
    MOMENTS,
    SECOND_MOMENT_OFFSET,
    MomentBounds,
    NumericColumns,
    numeric_columns,
)
from site_client.features.matrix import FeatureMatrix
from site_client.features.scaled import is_recorded
from site_client.training.noise import GRID_BITS
from site_client.training.randomness import Randomness

FINE_BITS: Final = 30
"""Patients' shares are multiples of 2^-30: sums of 10^9 patients stay within 64 bits."""


def feature_moments(trained: FeatureMatrix, columns: NumericColumns) -> npt.NDArray[np.int64]:
    """Return each patient's share of one feature's moments, int64 [patients, 3].

    In units of 2^-`FINE_BITS`: the mean over the patient's recorded values (of all rows and time
    bins) of x, of x^2 - 1/2, and 1; zeros where there is none. A share's L2 norm is at most
    `SENSITIVITY_PER_FEATURE`.

    Args:
        trained: who trains, values in [-1, 1].
        columns: of the feature.
    """
    patients = len(trained.y)
    recorded = is_recorded(trained, columns)
    recorded = recorded.reshape(patients, math.prod(recorded.shape[1:]))
    # A value outside the bounds would break the proof, whoever made the matrix.
    x = np.nan_to_num(trained.x[..., columns.values].astype(np.float64), nan=0.0)
    x = np.clip(x, -1.0, 1.0).reshape(patients, recorded.shape[1])
    values = recorded.sum(axis=1)
    moments = np.zeros((patients, 3), dtype=np.int64)
    for place, value in enumerate((x, x * x - SECOND_MOMENT_OFFSET)):
        fine = np.trunc(np.where(recorded, value, 0.0) * 2.0**FINE_BITS).astype(np.int64)
        total = fine.sum(axis=1)
        moments[:, place] = np.sign(total) * (np.abs(total) // np.maximum(values, 1))
    moments[values > 0, 2] = 1 << FINE_BITS
    return moments


def release_moments(
    trained: FeatureMatrix,
    plan: StudyPlan,
    *,
    mechanism: GaussianVector,
    declared_cohort_size: int,
    randomness: Randomness,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the noised sums of all features' moments, float32: one Gaussian vector.

    Args:
        trained: who trains, none of the held-out.
        plan: of the study.
        mechanism: how much noise; 0 adds none, for tests only.
        declared_cohort_size: public; it bounds what is sent.
        randomness: fresh.
    """
    columns = numeric_columns(plan)
    sums = np.stack([feature_moments(trained, item).sum(axis=0) for item in columns], axis=1)
    bounds = MomentBounds(len(columns), declared_cohort_size, mechanism.noise_multiplier)
    deviation = bounds.noise
    if deviation > 0:
        noise = randomness.noise.standard_normal(sums.shape) * deviation
        sums = _rounded(sums + np.rint(noise * 2.0**FINE_BITS).astype(np.int64), deviation)
    return {MOMENTS: bounds.fit(sums * 2.0**-FINE_BITS).astype(np.float32)}


def _rounded(sums: npt.NDArray[np.int64], deviation: float) -> npt.NDArray[np.int64]:
    shift = max(0, math.floor(math.log2(deviation)) - GRID_BITS + FINE_BITS)
    half = np.int64(1 << shift >> 1)
    return (sums + half) >> np.int64(shift) << np.int64(shift)
