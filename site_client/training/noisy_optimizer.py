"""From a clipped sum to a step: Opacus' optimiser with noise from cryptographic randomness.

Noise is drawn in float64 and the noised sum is rounded to a public grid before it becomes float32:
the rounding closes the low-order bits through which floating-point noise leaks (Mironov 2012).
What follows (scaling, momentum, moments, proximal term, weight decay) reads only the noised sum.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping

from common.study.plan import Adam, Sgd
from site_client.training.flat_parameters import FlatParameters

GRID_BITS: Final = 20
"""The grid's step is at most 2^-20 of the noise's standard deviation."""
SENSITIVITY_MARGIN: Final = 0.01
"""Extra noise, because one patient's row changes a float32 sum by more than the clipped gradient C.

Another patient's row never moves (`slots`), and blocks are added in float64, so only the rounding
within the block of R = 320 rows differs. Each addition of a sum errs by at most u = 2^-24 of what
it makes (Higham 2002, section 4.2), at most k C long where it adds up k patients; over any order of
summation these k add up to R (R + 1) / 2 at most, and scaling and multiplying err by 2 u C a
patient. So each of the two sums errs by at most (R^2 + 5 R) / 2 u C, both by 0.62 % of C, and the
norms' own rounding adds < 0.1 %.
"""


class NoisyOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus' optimiser for sums that are clipped already, over one flat vector.

    Args:
        optimizer: steps `flat.vector`.
        flat: whose `total` holds the clipped sum when `step` is called.
        noise: float64 stream.
        noise_multiplier: in units of the clipping norm; 0 adds none, for tests only.
        max_grad_norm: the clipping norm C.
        expected_batch_size: the public denominator.
        margin: relative extra noise.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        flat: FlatParameters,
        noise: np.random.Generator,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        margin: float = SENSITIVITY_MARGIN,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._flat = flat
        self._noise = noise
        self._margin = margin
        self._buffer = torch.empty_like(flat.total)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Do nothing: each step's sum overwrites the one before, in place."""

    def accumulate(self) -> None:
        """Take the flat gradient as the step's sum: one logical batch is one step."""
        self._flat.vector.grad = self._flat.gradient

    @torch.inference_mode()
    def add_noise(self) -> None:
        """Add N(0, (noise_multiplier * C)^2) to each coordinate, then round to the grid."""
        deviation = self.noise_multiplier * self.max_grad_norm * (1 + self._margin)
        if deviation <= 0:
            self._flat.gradient.copy_(self._flat.total)
            return
        # In units of the grid, so that rounding is to whole numbers; the step is a power of two,
        # hence exact. One pass a line over the whole vector.
        step = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
        self._noise.standard_normal(out=self._buffer.numpy())
        total = self._buffer.mul_(deviation / step)
        total.add_(self._flat.total, alpha=1 / step).round_()
        torch.mul(total, step, out=self._flat.gradient)


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
