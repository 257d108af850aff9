"""What steps a model by its noised gradient: the plan's SGD or Adam."""

from __future__ import annotations

from typing import Any

import torch

from common.study.plan import Adam, Sgd
from site_client.training.flat_parameters import FlatParameters


class NoiseCorrectedAdam(torch.optim.Optimizer):
    """Adam that subtracts the noise's own variance from the second moment (DP-AdamBC).

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; with t steps done,
    p -= lr * m / (1 - b1^t) / sqrt(max(v / (1 - b2^t) - s^2, stability^2)),
    where s is the standard deviation of the noise in g. Weight decay is decoupled. Without the
    correction the noise dominates v, and Adam is SGD with a smaller step. (Tang, Shpilevskiy and
    Lecuyer 2024, arXiv:2312.14334, Algorithm 1.)

    Args:
        vector: the flat parameters.
        spec: of the plan.
        noise_deviation: s, in units of the scaled gradient; may be set for another round.
    """

    def __init__(self, vector: torch.nn.Parameter, spec: Adam, *, noise_deviation: float) -> None:
        super().__init__([vector], {"lr": spec.learning_rate})
        self._vector = vector
        self._spec = spec
        self.noise_deviation = noise_deviation
        self.state[vector] = {
            "steps": 0,
            "first": torch.zeros_like(vector.data, dtype=torch.float64),
            "second": torch.zeros_like(vector.data, dtype=torch.float64),
        }

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the vector by one step from its `.grad`."""
        spec, gradient = self._spec, self._vector.grad
        if gradient is None:
            return
        state = self.state[self._vector]
        state["steps"] += 1
        value = gradient.double()
        state["first"].lerp_(value, 1 - spec.beta_1)
        state["second"].mul_(spec.beta_2).addcmul_(value, value, value=1 - spec.beta_2)
        first = state["first"] / (1 - spec.beta_1 ** state["steps"])
        second = state["second"] / (1 - spec.beta_2 ** state["steps"])
        second -= self.noise_deviation**2
        change = first / second.clamp_(min=spec.stability**2).sqrt_()
        self._vector.mul_(1 - spec.learning_rate * spec.weight_decay)
        self._vector.sub_(change.mul_(spec.learning_rate).to(self._vector.dtype))


def make_inner_optimizer(
    spec: Sgd | Adam, flat: FlatParameters, *, noise_deviation: float
) -> torch.optim.Optimizer:
    """Return the plan's optimiser of the noised gradient.

    Args:
        spec: of the plan.
        flat: what it steps.
        noise_deviation: standard deviation of the noise in the scaled gradient.
    """
    if isinstance(spec, Adam):
        return NoiseCorrectedAdam(flat.vector, spec, noise_deviation=noise_deviation)
    return torch.optim.SGD(
        [flat.vector],
        lr=spec.learning_rate,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
    )
