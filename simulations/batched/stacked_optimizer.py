"""The plan's optimiser for several sites at once; each site's state stays its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from common.study.plan import Adam, Sgd

State: TypeAlias = dict[str, Any]
"""One site's, with the names that the single engine's optimisers give them."""


class StackedSgd:
    """SGD with momentum and weight decay, in the order of `torch.optim.SGD`.

    Args:
        spec: of the plan.
        states: of the sites.
        like: [sites, parameters], what is stepped.
    """

    def __init__(self, spec: Sgd, states: Sequence[State], like: torch.Tensor) -> None:
        self._spec = spec
        self._momentum: torch.Tensor | None = None
        if spec.momentum > 0:
            self._momentum = _stacked(states, "momentum_buffer", like)

    def step(self, vectors: torch.Tensor, gradients: torch.Tensor) -> None:
        """Move all sites' vectors by one step; the gradients are overwritten."""
        spec = self._spec
        if spec.weight_decay != 0:
            gradients.add_(vectors, alpha=spec.weight_decay)
        if self._momentum is not None:
            gradients = self._momentum.mul_(spec.momentum).add_(gradients)
        vectors.add_(gradients, alpha=-spec.learning_rate)

    def states(self, length: int) -> list[State]:
        """Return each site's state, of vectors of a length."""
        if self._momentum is None:
            return []
        return [{"momentum_buffer": row[:length].clone()} for row in self._momentum]


class StackedAdam:
    """`NoiseCorrectedAdam` of several sites.

    Args:
        spec: of the plan.
        states: of the sites.
        like: [sites, parameters], what is stepped.
        noise_deviation: float64 [sites, 1], as there.
    """

    def __init__(
        self,
        spec: Adam,
        states: Sequence[State],
        like: torch.Tensor,
        *,
        noise_deviation: torch.Tensor,
    ) -> None:
        self._spec = spec
        self._noise_variance = noise_deviation**2
        wide = like.double()
        self._steps = [int(state.get("steps", 0)) for state in states]
        self._first = _stacked(states, "first", wide)
        self._second = _stacked(states, "second", wide)

    def step(self, vectors: torch.Tensor, gradients: torch.Tensor) -> None:
        """Move all sites' vectors by one step."""
        spec = self._spec
        self._steps = [count + 1 for count in self._steps]
        value = gradients.double()
        self._first.lerp_(value, 1 - spec.beta_1)
        self._second.mul_(spec.beta_2).addcmul_(value, value, value=1 - spec.beta_2)
        first = self._first / self._unbiased(spec.beta_1)
        second = self._second / self._unbiased(spec.beta_2) - self._noise_variance
        change = first / second.clamp_(min=spec.stability**2).sqrt_()
        vectors.mul_(1 - spec.learning_rate * spec.weight_decay)
        vectors.sub_(change.mul_(spec.learning_rate).to(vectors.dtype))

    def states(self, length: int) -> list[State]:
        """Return each site's state, of vectors of a length."""
        return [
            {"steps": steps, "first": first[:length].clone(), "second": second[:length].clone()}
            for steps, first, second in zip(self._steps, self._first, self._second, strict=True)
        ]

    def _unbiased(self, beta: float) -> torch.Tensor:
        return torch.tensor([[1 - beta**steps] for steps in self._steps], dtype=torch.float64)


def _stacked(states: Sequence[State], name: str, like: torch.Tensor) -> torch.Tensor:
    """Return one value of each site's state [sites, parameters]; zeros where there is none."""
    stacked = torch.zeros_like(like)
    for row, state in zip(stacked, states, strict=True):
        kept = state.get(name)
        if kept is not None:
            row[: len(kept)] = kept
    return stacked


def make_stacked_optimizer(
    spec: Sgd | Adam, states: Sequence[State], like: torch.Tensor, *, noise_deviation: torch.Tensor
) -> StackedSgd | StackedAdam:
    """Return the plan's optimiser of several sites.

    Args:
        spec: of the plan.
        states: each site's at the start of the round.
        like: [sites, parameters], what is stepped.
        noise_deviation: float64 [sites, 1], of the noise in the scaled gradient.
    """
    if isinstance(spec, Adam):
        return StackedAdam(spec, states, like, noise_deviation=noise_deviation)
    return StackedSgd(spec, states, like)
