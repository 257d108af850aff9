from __future__ import annotations

import hashlib

import numpy as np
import pytest

from common.models import build_model
from common.study.columns import (
    column_count,
    feature_columns,
    initial_parameters,
    parameter_count,
    parameter_shapes,
)
from tests.lib.plans import make_plan

MLP = {"kind": "mlp", "hidden": [8, 3]}
RESIDUAL = {"kind": "residual_mlp", "width": 5, "blocks": 2}
GRU = {"kind": "gru", "width": 4}


def test_columns_follow_the_plan_with_levels_and_indicators() -> None:
    assert feature_columns(make_plan()) == (
        "age",
        "systolic_bp",
        "systolic_bp__missing",
        "sex=female",
        "sex=male",
        "sex__missing",
    )


def test_shapes_of_both_models() -> None:
    assert parameter_shapes(make_plan()) == {"linear.weight": (1, 6), "linear.bias": (1,)}
    shapes = parameter_shapes(make_plan(model=MLP))
    assert shapes == {
        "layers.0.weight": (8, 6),
        "layers.0.bias": (8,),
        "layers.1.weight": (3, 8),
        "layers.1.bias": (3,),
        "layers.2.weight": (1, 3),
        "layers.2.bias": (1,),
    }
    assert parameter_count(make_plan(model=MLP)) == 8 * 6 + 8 + 3 * 8 + 3 + 3 + 1


def test_time_bins_make_their_columns_in_each_bin_the_oldest_first() -> None:
    plan = make_plan(features__1__time_bins=2)
    assert feature_columns(plan) == (
        "age",
        "systolic_bp[1]",
        "systolic_bp__missing[1]",
        "systolic_bp[2]",
        "systolic_bp__missing[2]",
        "sex=female",
        "sex=male",
        "sex__missing",
    )


@pytest.mark.parametrize("model", [{"kind": "logistic_regression"}, GRU])
def test_columns_are_counted_as_they_are_named(model: dict[str, object]) -> None:
    plan = make_plan(features__1__time_bins=5, model=model)
    assert column_count(plan) == len(feature_columns(plan))


def test_a_recurrent_model_has_all_features_in_every_bin() -> None:
    plan = make_plan(features__1__time_bins=2, model=GRU)
    names = ("age", "systolic_bp", "systolic_bp__missing", "sex=female", "sex=male", "sex__missing")
    assert feature_columns(plan) == tuple(f"{name}[{place}]" for place in (1, 2) for name in names)


@pytest.mark.parametrize("model", [{"kind": "logistic_regression"}, MLP, RESIDUAL, GRU])
def test_the_shapes_are_those_of_the_torch_model(model: dict[str, object]) -> None:
    plan = make_plan(features__1__time_bins=3, model=model)
    built = build_model(plan).named_parameters()
    assert parameter_shapes(plan) == {name: tuple(item.shape) for name, item in built}
    assert initial_parameters(plan).keys() == parameter_shapes(plan).keys()


def test_logistic_regression_starts_at_zero() -> None:
    parameters = initial_parameters(make_plan())
    assert {name: array.shape for name, array in parameters.items()} == parameter_shapes(
        make_plan()
    )
    assert all(array.dtype == np.float32 and not array.any() for array in parameters.values())


def test_the_first_mlp_is_glorot_uniform_with_zero_biases() -> None:
    plan = make_plan(model={"kind": "mlp", "hidden": [400]})
    parameters = initial_parameters(plan)
    weight, bound = parameters["layers.0.weight"], np.sqrt(6 / 406)
    assert weight.dtype == np.float32
    assert np.abs(weight).max() <= bound
    assert abs(weight.std() / (bound / np.sqrt(3)) - 1) < 0.05
    assert abs(weight.mean()) < bound / 20
    assert not parameters["layers.0.bias"].any()


def test_the_first_model_is_a_function_of_the_plan_and_frozen() -> None:
    def digest(plan_seed: int) -> str:
        plan = make_plan(model=MLP, training__round_deadline_s=plan_seed)
        arrays = initial_parameters(plan).values()
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    assert digest(60) == digest(60) != digest(61)
    assert digest(60) == "44560573325f787804e52f5b8ad6febf92aae6c9954300b46e720f2470d09c6e"
