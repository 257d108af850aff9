"""How much of each patient's gradient enters the sum: never more than the clipping norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch

OPACUS_EPSILON: Final = 1e-6
"""Added to the norm as Opacus does, so that both engines give the same sums."""
NORMALIZED_STABILITY: Final = 0.01
"""gamma of Bu et al. 2023 (arXiv:2206.07136, section 4): their default, good in all their tasks."""


@dataclass(frozen=True)
class Clipping:
    """The rule and its bound.

    Args:
        norm: C, the L2 bound on a patient's share in the sum.
        rule: flat: g * min(1, C / |g|). normalized: g * C / (|g| + gamma). Both have norm <= C,
            so both have sensitivity C under adding or removing a patient.
    """

    norm: float
    rule: Literal["flat", "normalized"] = "flat"

    def factors(self, squared_norms: torch.Tensor) -> torch.Tensor:
        """Return each patient's factor [patients].

        Args:
            squared_norms: [patients], finite.
        """
        # Rounding can leave a Gram matrix's sum a hair below zero.
        norms = squared_norms.clamp_(min=0).sqrt_()
        if self.rule == "normalized":
            return self.norm / (norms + NORMALIZED_STABILITY)
        return (self.norm / (norms + OPACUS_EPSILON)).clamp_(max=1.0)
