from __future__ import annotations

import hashlib

import numpy as np

from common.study.columns import (
    feature_columns,
    initial_parameters,
    parameter_count,
    parameter_shapes,
)
from tests.lib.plans import make_plan

MLP = {"kind": "mlp", "hidden": [8, 3]}


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
    assert digest(60) == "2c7f84d3eb8a99a019769bc2434ac2ab0874816312115ae225877b6430c9b569"
