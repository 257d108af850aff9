"""The columns of the feature matrix and the shapes of the model, decided by the plan alone."""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from common.study.plan import (
    CategoricalFeature,
    GatedRecurrentUnit,
    LogisticRegression,
    NumericFeature,
    ResidualPerceptron,
    StudyPlan,
)
from common.study.plan_bytes import plan_digest

MISSING_SUFFIX: Final = "__missing"


def bins_of_feature(feature: NumericFeature | CategoricalFeature) -> int:
    """Return in how many time bins a feature has values; 1 without bins."""
    return (feature.time_bins or 1) if isinstance(feature, NumericFeature) else 1


def bins_of_model(plan: StudyPlan) -> int | None:
    """Return over how many time bins a recurrent model goes; None for another model."""
    if not isinstance(plan.model, GatedRecurrentUnit):
        return None
    return max(bins_of_feature(feature) for feature in plan.features)


def columns_of_feature(feature: NumericFeature | CategoricalFeature) -> tuple[str, ...]:
    """Return the matrix columns that one feature makes, in order.

    A numeric feature makes a column of its name, a categorical one a column `name=level` for each
    level; either makes `name__missing` as well when its missing values have an indicator. With time
    bins it makes these in each, `name[1]` being of the oldest.
    """
    names = _names_in_a_bin(feature)
    bins = bins_of_feature(feature)
    return names if bins == 1 else _in_bins(names, bins)


def value_names(feature: NumericFeature | CategoricalFeature) -> tuple[str, ...]:
    """Return the names of a feature's columns in one bin, but for its indicator."""
    if isinstance(feature, NumericFeature):
        return (feature.name,)
    return tuple(f"{feature.name}={level}" for level in feature.levels)


def _names_in_a_bin(feature: NumericFeature | CategoricalFeature) -> tuple[str, ...]:
    names = value_names(feature)
    if feature.missing == "indicator":
        names += (feature.name + MISSING_SUFFIX,)
    return names


def _in_bins(names: tuple[str, ...], bins: int) -> tuple[str, ...]:
    return tuple(f"{name}[{place}]" for place in range(1, bins + 1) for name in names)


def column_count(plan: StudyPlan) -> int:
    """Return the number of `feature_columns` without naming them."""
    bins = bins_of_model(plan)
    return sum(
        len(_names_in_a_bin(feature)) * (bins_of_feature(feature) if bins is None else bins)
        for feature in plan.features
    )


def feature_columns(plan: StudyPlan) -> tuple[str, ...]:
    """Return all matrix columns: features in the plan's order.

    For a recurrent model bins come first: all features' columns of the oldest bin, then the next;
    a feature without bins stands in each.
    """
    bins = bins_of_model(plan)
    if bins is None:
        return tuple(itertools.chain.from_iterable(map(columns_of_feature, plan.features)))
    return _in_bins(tuple(itertools.chain.from_iterable(map(_names_in_a_bin, plan.features))), bins)


class ColumnPlaces:
    """Where columns stand in a plan's matrix, by the name that they have in one bin.

    Args:
        plan: whose columns.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._places = {name: place for place, name in enumerate(feature_columns(plan))}
        self._bins = bins_of_model(plan)

    def of(self, feature: NumericFeature | CategoricalFeature, name: str) -> tuple[int, ...]:
        """Return a column's place in each time bin of its feature, the oldest first."""
        bins = self._bins or bins_of_feature(feature)
        names = (name,) if bins == 1 else _in_bins((name,), bins)
        return tuple(self._places[item] for item in names)


def parameter_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by name, as in `common.models`' state dict."""
    width = column_count(plan)
    if isinstance(plan.model, LogisticRegression):
        return {"linear.weight": (1, width), "linear.bias": (1,)}
    if isinstance(plan.model, ResidualPerceptron):
        return _residual_shapes(width, plan.model)
    if isinstance(plan.model, GatedRecurrentUnit):
        return _recurrent_shapes(width // (bins_of_model(plan) or 1), plan.model.width)
    shapes: dict[str, tuple[int, ...]] = {}
    widths = (width, *plan.model.hidden, 1)
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        shapes[f"layers.{layer}.weight"] = (fan_out, fan_in)
        shapes[f"layers.{layer}.bias"] = (fan_out,)
    return shapes


def _recurrent_shapes(columns: int, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of `torch.nn.GRU` and Opacus' DPGRU: three gates, one above the other."""
    return {
        "unit.weight_ih_l0": (3 * width, columns),
        "unit.bias_ih_l0": (3 * width,),
        "unit.weight_hh_l0": (3 * width, width),
        "unit.bias_hh_l0": (3 * width,),
        "outlet.weight": (1, width),
        "outlet.bias": (1,),
    }


def _residual_shapes(columns: int, model: ResidualPerceptron) -> dict[str, tuple[int, ...]]:
    width = model.width
    shapes: dict[str, tuple[int, ...]] = {"inlet.weight": (width, columns), "inlet.bias": (width,)}
    for block in range(model.blocks):
        name = f"blocks.{block}."
        shapes |= {name + "norm.weight": (width,), name + "norm.bias": (width,)}
        for layer in ("first", "second"):
            shapes |= {f"{name}{layer}.weight": (width, width), f"{name}{layer}.bias": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return shapes | {"outlet.weight": (1, width), "outlet.bias": (1,)}


def parameter_count(plan: StudyPlan) -> int:
    """Return the number of the model's parameters."""
    return sum(math.prod(shape) for shape in parameter_shapes(plan).values())


def initial_parameters(plan: StudyPlan) -> dict[str, npt.NDArray[np.float32]]:
    """Return the model of round 1: the same bytes on every machine, from the plan's digest.

    Logistic regression starts at zero. Other models start with Glorot uniform weights (Glorot and
    Bengio 2010, equation 16), zero biases, and gains of one in layer normalisation.
    """
    # PCG64's raw output is fixed by NumPy's compatibility policy; its float methods are not.
    stream = np.random.PCG64(int(plan_digest(plan), 16))
    parameters: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(plan).items():
        if len(shape) == 1 or isinstance(plan.model, LogisticRegression):
            start = 1.0 if name.endswith("norm.weight") else 0.0
            parameters[name] = np.full(shape, start, dtype=np.float32)
            continue
        bound = math.sqrt(6 / (shape[0] + shape[1]))
        raw = np.asarray(stream.random_raw(math.prod(shape)), dtype=np.uint64)
        unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        parameters[name] = ((2 * unit - 1) * bound).astype(np.float32).reshape(shape)
    return parameters
