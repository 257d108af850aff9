"""From a clipped sum to a step: Opacus' optimiser with noise from cryptographic randomness.

What follows the noise (scaling, momentum, moments, proximal term, weight decay) reads only the
noised sum (`noise`).
"""

from __future__ import annotations

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping

from site_client.training.flat_parameters import FlatParameters
from site_client.training.noise import SENSITIVITY_MARGIN, write_noised


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
        write_noised(
            self._flat.total,
            deviation=deviation,
            noise=self._noise,
            buffer=self._buffer,
            into=self._flat.gradient,
        )
