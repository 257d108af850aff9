"""FedAvg and FedAdam against Flower's own strategies, and their state across a restart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from common.errors import StoreError
from common.study.plan import FedAdam, FedAvg
from server.aggregation import WeightedMean
from server.server_optimizer import ServerOptimizer

Arrays = dict[str, npt.NDArray[np.float32]]
SHAPES = {"linear.weight": (3, 4), "linear.bias": (3,)}
WEIGHTS = (100, 303, 57)
ROUNDS = 6


class _NoGrid:
    """Two couriers that nobody asks: Flower's FedOpt learns the current model on the way."""

    def get_node_ids(self) -> list[int]:
        return [1, 2]


def _arrays(rng: np.random.Generator, scale: float) -> Arrays:
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in SHAPES.items()}


def _flower_round(theirs: Any, number: int, model: Arrays, updates: list[Arrays]) -> Arrays:
    # No message is made, since no run is there to send it: only the current model is taken.
    theirs._construct_messages = lambda *_: []
    theirs.configure_train(number, _record(model), ConfigRecord(), _NoGrid())
    replies = []
    for update, weight in zip(updates, WEIGHTS, strict=True):
        trained = {name: model[name] + update[name] for name in model}
        content = RecordDict(
            {"arrays": _record(trained), "metrics": MetricRecord({"num-examples": weight})}
        )
        replies.append(SimpleNamespace(has_error=lambda: False, content=content))
    arrays, _ = theirs.aggregate_train(number, replies)
    return {name: array.numpy().astype(np.float32) for name, array in arrays.items()}


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def _our_round(ours: ServerOptimizer, model: Arrays, updates: list[Arrays]) -> Arrays:
    mean = WeightedMean(SHAPES)
    for update, weight in zip(updates, WEIGHTS, strict=True):
        mean.add(update, weight=float(weight))
    return ours.step(model, mean.mean())


STRATEGIES = {
    "fedavg": (FedAvg(kind="fedavg"), lambda: flower.FedAvg(min_train_nodes=2)),
    "fedadam": (
        FedAdam(kind="fedadam", server_learning_rate=0.1),
        lambda: flower.FedAdam(eta=0.1),
    ),
    "fedadam with other settings": (
        FedAdam(kind="fedadam", server_learning_rate=0.03, beta_1=0.5, beta_2=0.9, tau=0.01),
        lambda: flower.FedAdam(eta=0.03, beta_1=0.5, beta_2=0.9, tau=0.01),
    ),
}


@pytest.mark.parametrize("is_restored", [False, True], ids=["one process", "restarted"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_several_rounds_give_the_same_model_as_flowers_strategy(
    name: str, is_restored: bool
) -> None:
    settings, make_theirs = STRATEGIES[name]
    theirs, ours = make_theirs(), ServerOptimizer(settings)
    rng = np.random.default_rng(20261121)
    their_model = our_model = _arrays(rng, 0.5)
    for number in range(1, ROUNDS + 1):
        updates = [_arrays(rng, 0.1) for _ in WEIGHTS]
        their_model = _flower_round(theirs, number, their_model, updates)
        our_model = _our_round(ours, our_model, updates)
        if is_restored:
            ours = ServerOptimizer(settings, state=ours.state_bytes())
        for key, value in our_model.items():
            assert value.dtype == np.float32
            # Flower keeps its state in float32; ours is float64.
            np.testing.assert_allclose(value, their_model[key], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_restored_optimiser_goes_on_bit_for_bit(name: str) -> None:
    settings, _ = STRATEGIES[name]
    rng = np.random.default_rng(7)
    whole, broken = ServerOptimizer(settings), ServerOptimizer(settings)
    model = other = _arrays(rng, 0.5)
    for _ in range(ROUNDS):
        updates = [_arrays(rng, 0.1) for _ in WEIGHTS]
        model = _our_round(whole, model, updates)
        other = _our_round(broken, other, updates)
        broken = ServerOptimizer(settings, state=broken.state_bytes())
        assert all((model[key] == other[key]).all() for key in SHAPES)
        assert whole.state_bytes() == broken.state_bytes()


def test_fedavg_with_a_learning_rate_goes_that_part_of_the_way() -> None:
    ours = ServerOptimizer(FedAvg(kind="fedavg", server_learning_rate=0.5))
    model = {"bias": np.array([1.0], dtype=np.float32)}
    assert ours.step(model, {"bias": np.array([4.0])})["bias"] == np.float32(3.0)


def test_the_model_of_the_round_is_not_changed() -> None:
    model = {"bias": np.array([1.0], dtype=np.float32)}
    ServerOptimizer(FedAdam(kind="fedadam", server_learning_rate=0.1)).step(
        model, {"bias": np.array([4.0])}
    )
    assert model["bias"] == 1.0


@pytest.mark.parametrize(
    "state", [b"x", b"\0" * 40, ServerOptimizer(FedAvg(kind="fedavg")).state_bytes()[:-3]]
)
def test_a_damaged_state_is_refused(state: bytes) -> None:
    with pytest.raises(StoreError):
        ServerOptimizer(FedAvg(kind="fedavg"), state=state)


def test_the_last_model_is_the_average_in_which_older_models_weigh_less() -> None:
    rng = np.random.default_rng(4)
    ours = ServerOptimizer(FedAvg(kind="fedavg"), average_decay=0.8)
    models, model = [], _arrays(rng, 1.0)
    for number in range(ROUNDS):
        mean = {name: array.astype(np.float64) for name, array in _arrays(rng, 0.1).items()}
        model = ours.step(model, mean)
        models.append(model)
        if number == 2:  # the average outlives the process
            ours = ServerOptimizer(
                FedAvg(kind="fedavg"), average_decay=0.8, state=ours.state_bytes()
            )
    weights = 0.8 ** np.arange(ROUNDS - 1, -1, -1)
    for name, array in ours.last(model).items():
        expected = np.average([item[name] for item in models], axis=0, weights=weights)
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-7)


def test_without_an_average_the_last_model_is_the_last_rounds() -> None:
    model = _arrays(np.random.default_rng(5), 1.0)
    assert ServerOptimizer(FedAvg(kind="fedavg")).last(model) is model
