"""Scaling of numeric features: its arrays, what a site releases for it, and the bounds of both.

A model of a plan with `[scaling]` has two arrays besides its parameters, which are never trained:
the mean and the standard deviation of every numeric feature, of values that the public clip bounds
have brought to [-1, 1]. They travel with the parameters wherever these go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.study.columns import (
    MISSING_SUFFIX,
    ColumnPlaces,
    initial_parameters,
    parameter_shapes,
)
from common.study.plan import NumericFeature, StudyPlan

MEAN: Final = "scaling.mean"
DEVIATION: Final = "scaling.sd"
MOMENTS: Final = "scaling.moments"
"""Float32 [3, numeric features]: sums over patients of x, x^2 - 1/2 and 1, where x is there."""

SECOND_MOMENT_OFFSET: Final = 0.5
SENSITIVITY_PER_FEATURE: Final = 1.5
"""A patient with x in [-1, 1] adds (x, x^2 - 1/2, 1), of squared length x^4 + 5/4 <= (3/2)^2; one
without x adds nothing; the mean over a patient's values is no longer than the longest."""
TAIL: Final = 12.0
"""Noise deviations that no honest number exceeds: of a sum of two, once in 10^16."""
_ROUNDING: Final = 1e-6  # of float32, in which moments travel

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NumericColumns:
    """Where a numeric feature's values and their indicators stand in the matrix.

    Args:
        feature: whose values they hold.
        values: places of the values; several in time bins, the oldest first.
        indicators: places of the columns that are 1 where nothing was recorded, like `values`;
            empty when a value is always there.
    """

    feature: NumericFeature
    values: tuple[int, ...]
    indicators: tuple[int, ...]


@dataclass(frozen=True)
class Scaling:
    """How numeric features are scaled: z = (x - mean) / deviation.

    Args:
        mean: float32 [numeric features], in [-1, 1].
        deviation: float32 [numeric features], in [deviation_min, 1].
    """

    mean: Floats
    deviation: Floats

    def arrays(self) -> dict[str, Floats]:
        """Return the named arrays that stand beside a model's parameters."""
        return {MEAN: self.mean, DEVIATION: self.deviation}


def numeric_columns(plan: StudyPlan) -> tuple[NumericColumns, ...]:
    """Return the columns of each numeric feature, in the plan's order.

    A feature in time bins has one scale for all of them, so that its values stay comparable.
    """
    places = ColumnPlaces(plan)
    return tuple(
        NumericColumns(
            feature,
            values=places.of(feature, feature.name),
            indicators=places.of(feature, feature.name + MISSING_SUFFIX)
            if feature.missing == "indicator"
            else (),
        )
        for feature in plan.features
        if isinstance(feature, NumericFeature)
    )


def model_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a model that travels: parameters, and scaling if any."""
    shapes = parameter_shapes(plan)
    if plan.scaling is not None:
        count = len(numeric_columns(plan))
        shapes |= {MEAN: (count,), DEVIATION: (count,)}
    return shapes


def moment_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Return the shape of what a site releases before round 1."""
    return {MOMENTS: (3, len(numeric_columns(plan)))}


def identity(plan: StudyPlan) -> Scaling:
    """Return the scaling that changes nothing."""
    count = len(numeric_columns(plan))
    return Scaling(np.zeros(count, np.float32), np.ones(count, np.float32))


def initial_model(plan: StudyPlan) -> dict[str, Floats]:
    """Return the plan's own start with, if it has scaling, the one that changes nothing."""
    parameters = initial_parameters(plan)
    return parameters if plan.scaling is None else parameters | identity(plan).arrays()


def split_model(arrays: Mapping[str, Floats]) -> tuple[dict[str, Floats], Scaling | None]:
    """Return the trained parameters, and the scaling if there is one."""
    trained = {name: array for name, array in arrays.items() if name not in (MEAN, DEVIATION)}
    if MEAN not in arrays:
        return trained, None
    return trained, Scaling(arrays[MEAN], arrays[DEVIATION])


def sensitivity(features: int) -> float:
    """Return how far, in L2, one patient more or less moves the moments of so many features."""
    return SENSITIVITY_PER_FEATURE * math.sqrt(features)


@dataclass(frozen=True)
class MomentBounds:
    """What the moments of an honest site stay within; all of it is public.

    Args:
        features: numeric ones.
        patients: that the site declares.
        noise_multiplier: of its release.
    """

    features: int
    patients: int
    noise_multiplier: float

    @property
    def noise(self) -> float:
        """Standard deviation of the noise in each number."""
        return self.noise_multiplier * sensitivity(self.features)

    @property
    def norm_max(self) -> float:
        """L2 norm of all moments together."""
        noise = self.noise * (math.sqrt(3 * self.features) + TAIL)
        return sensitivity(self.features) * self.patients + noise

    def fit(self, moments: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return noised moments scaled into the bounds.

        A site may have more patients than it declares: its means stay what they are, and it weighs
        as much as it declared.
        """
        most = max(float(moments[2].max()) / self.patients, 1.0)
        fitted = moments / most
        norm = float(np.sqrt(np.square(fitted).sum()))
        return fitted * min(1.0, self.norm_max / norm) if norm > 0 else fitted

    def are_plausible(self, moments: npt.NDArray[np.floating]) -> bool:
        """Return whether these are sums over so many patients of values in [-1, 1], with noise."""
        room = TAIL * self.noise + _ROUNDING * self.patients
        sums, squares, counts = moments.astype(np.float64)
        return bool(
            (np.abs(sums) <= counts + room).all()
            and (np.abs(squares) <= SECOND_MOMENT_OFFSET * counts + room).all()
            and (counts <= self.patients + room).all()
        )


def is_in_bounds(scaling: Scaling, plan: StudyPlan) -> bool:
    """Return whether means lie in [-1, 1] and deviations in [deviation_min, 1]."""
    lowest = 0.0 if plan.scaling is None else np.float32(plan.scaling.deviation_min)
    return bool(
        np.isfinite(scaling.mean).all()
        and np.isfinite(scaling.deviation).all()
        and (np.abs(scaling.mean) <= 1).all()
        and (scaling.deviation >= lowest).all()
        and (scaling.deviation <= 1).all()
    )


def in_units(scaling: Scaling, plan: StudyPlan) -> list[tuple[NumericFeature, float, float]]:
    """Return each numeric feature with its mean and deviation in the plan's unit."""
    found = []
    for columns, mean, deviation in zip(
        numeric_columns(plan), scaling.mean, scaling.deviation, strict=True
    ):
        low, high = columns.feature.clip
        half = (high - low) / 2
        found.append((columns.feature, low + (float(mean) + 1) * half, float(deviation) * half))
    return found
