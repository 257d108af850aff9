"""`Budget(epsilon, delta)`: a value with comparison, never a running total."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.errors import AccountingError


@dataclass(frozen=True)
class Budget:
    """An (epsilon, delta) pair for the unit and relation of `common.privacy.unit`.

    Args:
        epsilon: at least 0 and finite.
        delta: in [0, 1).
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0 and 0 <= self.delta < 1):
            raise AccountingError(
                "not a privacy budget",
                expected="epsilon finite and at least 0, delta in [0, 1)",
                arrived=f"epsilon={self.epsilon}, delta={self.delta}",
                todo="correct the two numbers",
            )

    def covers(self, spent: Budget) -> bool:
        """Return whether `spent` stays within this budget in both numbers."""
        return spent.epsilon <= self.epsilon and spent.delta <= self.delta
