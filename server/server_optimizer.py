"""From the mean update to the next model: FedAvg and FedAdam, with their state as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from common.errors import StoreError
from common.protocol.arrays import Parameters
from common.study.plan import FedAdam, FedAvg

Array64 = npt.NDArray[np.float64]
_FIRST: Final = "m/"
_SECOND: Final = "v/"


class ServerOptimizer:
    """One strategy with its state.

    FedAvg: x + lr * mean. FedAdam (Reddi et al. 2021, Algorithm 2, with the bias-corrected rate of
    Kingma and Ba 2015, section 2): m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d^2;
    x + lr_t * m / (sqrt(v) + tau), where d is the mean update and
    lr_t = lr * sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)) in round t, exactly as Flower's FedAdam.

    Args:
        strategy: of the plan.
        state: what `state_bytes` returned after the round before; empty at the start.
    """

    def __init__(self, strategy: FedAvg | FedAdam, *, state: bytes = b"") -> None:
        self._strategy = strategy
        self._steps = 0
        self._first: dict[str, Array64] = {}
        self._second: dict[str, Array64] = {}
        if state:
            self._restore(state)

    def step(self, parameters: Parameters, mean: Mapping[str, Array64]) -> Parameters:
        """Return the next model from the model of this round and the mean update."""
        self._steps += 1
        strategy = self._strategy
        change = (
            {name: strategy.server_learning_rate * value for name, value in mean.items()}
            if isinstance(strategy, FedAvg)
            else self._adam(strategy, mean)
        )
        return {
            name: (array.astype(np.float64) + change[name]).astype(np.float32)
            for name, array in parameters.items()
        }

    def state_bytes(self) -> bytes:
        """Return the state as safetensors bytes, to be kept in the round's checkpoint."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "steps": np.array([self._steps], dtype=np.int64)
        }
        arrays.update({_FIRST + name: value for name, value in self._first.items()})
        arrays.update({_SECOND + name: value for name, value in self._second.items()})
        return safetensors.numpy.save(arrays)

    def _adam(self, strategy: FedAdam, mean: Mapping[str, Array64]) -> dict[str, Array64]:
        change: dict[str, Array64] = {}
        b1, b2, power = strategy.beta_1, strategy.beta_2, self._steps + 1
        rate = strategy.server_learning_rate * np.sqrt(1 - b2**power) / (1 - b1**power)
        for name, value in mean.items():
            first = b1 * self._first.get(name, np.zeros_like(value)) + (1 - b1) * value
            second = b2 * self._second.get(name, np.zeros_like(value)) + (1 - b2) * value**2
            self._first[name], self._second[name] = first, second
            change[name] = rate * first / (np.sqrt(second) + strategy.tau)
        return change

    def _restore(self, state: bytes) -> None:
        try:
            arrays = safetensors.numpy.load(state)
            self._steps = int(arrays.pop("steps")[0])
        except (safetensors.SafetensorError, ValueError, KeyError, IndexError):
            raise StoreError(
                "a stored optimiser state is refused",
                expected="what the round before wrote",
                arrived="other bytes",
                todo="restore the coordinator's models folder from its backup",
            ) from None
        for name, value in arrays.items():
            target = self._first if name.startswith(_FIRST) else self._second
            target[name[2:]] = value
