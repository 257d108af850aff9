"""From the mean update to the next model: FedAvg and FedAdam, with their state as bytes.

The models of the rounds can be averaged, newer ones weighing more; the study's last model is then
that average, which has less of the noise of single rounds. It is computed from models that were
released already, so it costs no privacy (De et al. 2022, section 3).
"""

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
_AVERAGE: Final = "a/"


class ServerOptimizer:
    """One strategy with its state.

    FedAvg: x + lr * mean. FedAdam (Reddi et al. 2021, Algorithm 2, with the bias-corrected rate of
    Kingma and Ba 2015, section 2): m = b1 m + (1 - b1) d; v = b2 v + (1 - b2) d^2;
    x + lr_t * m / (sqrt(v) + tau), where d is the mean update and
    lr_t = lr * sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)) in round t, exactly as Flower's FedAdam.

    Args:
        strategy: of the plan.
        average_decay: the plan's `model_average_decay`; 0 is no average.
        state: what `state_bytes` returned after the round before; empty at the start.
    """

    def __init__(
        self, strategy: FedAvg | FedAdam, *, average_decay: float = 0.0, state: bytes = b""
    ) -> None:
        self._strategy = strategy
        self._decay = average_decay
        self._steps = 0
        self._first: dict[str, Array64] = {}
        self._second: dict[str, Array64] = {}
        self._average: dict[str, Array64] = {}
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
        after = {
            name: array.astype(np.float64) + change[name] for name, array in parameters.items()
        }
        if self._decay > 0:
            decay = self._decay
            self._average = {
                name: decay * self._average.get(name, np.zeros_like(value)) + (1 - decay) * value
                for name, value in after.items()
            }
        return {name: value.astype(np.float32) for name, value in after.items()}

    def last(self, parameters: Parameters) -> Parameters:
        """Return the study's last model: the average of the rounds' models if the plan has one.

        Weights are proportional to decay^age, so that they sum to one from the first round on.
        """
        if self._decay == 0:
            return parameters
        weight = 1 - self._decay**self._steps
        return {name: (value / weight).astype(np.float32) for name, value in self._average.items()}

    def state_bytes(self) -> bytes:
        """Return the state as safetensors bytes, to be kept in the round's checkpoint."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "steps": np.array([self._steps], dtype=np.int64)
        }
        arrays.update({_FIRST + name: value for name, value in self._first.items()})
        arrays.update({_SECOND + name: value for name, value in self._second.items()})
        arrays.update({_AVERAGE + name: value for name, value in self._average.items()})
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
            targets = {_FIRST: self._first, _SECOND: self._second, _AVERAGE: self._average}
            targets[name[:2]][name[2:]] = value
