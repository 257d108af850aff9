"""Numeric features of a finished matrix: where a value is recorded, and scaling it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from common.study.plan import StudyPlan
from common.study.scaling import NumericColumns, Scaling, numeric_columns
from site_client.features.matrix import FeatureMatrix


def scale(matrix: FeatureMatrix, plan: StudyPlan, scaling: Scaling | None) -> FeatureMatrix:
    """Return the matrix with z = (x - mean) / deviation in numeric features, clipped.

    A missing value stays 0 beside its indicator, and padding stays 0; a time bin without a value
    has the last one before it, scaled like any. Each value depends on its own row and on what is
    public: scaling tells nothing about anybody else.

    Args:
        matrix: of the plan's public bounds, values in [-1, 1].
        plan: says how many deviations from the mean a value is clipped.
        scaling: of the study; None returns the matrix as it is.
    """
    if scaling is None or plan.scaling is None:
        return matrix
    most = np.float32(plan.scaling.deviations_max)
    x = matrix.x.copy()
    for number, columns in enumerate(numeric_columns(plan)):
        z = (matrix.x[..., columns.values] - scaling.mean[number]) / scaling.deviation[number]
        has_value = np.logical_or.accumulate(is_recorded(matrix, columns), axis=-1)
        x[..., columns.values] = np.where(has_value, np.clip(z, -most, most), 0)
    return dataclasses.replace(matrix, x=x)


def is_recorded(matrix: FeatureMatrix, columns: NumericColumns) -> npt.NDArray[np.bool_]:
    """Return where a feature has a value of its own: [..., bins], False in padding."""
    recorded = np.ones((*matrix.y.shape, len(columns.values)), dtype=np.bool_)
    if columns.indicators:
        recorded &= matrix.x[..., columns.indicators] == 0
    if matrix.weight is not None:
        recorded &= matrix.weight[..., None] > 0
    return recorded
