"""A privacy filter of one Rényi order, fixed beforehand from (epsilon, delta) alone.

It lets releases pass as long as the sum of their Rényi divergences at that order stays within a
budget, and then everything it let pass is (epsilon, delta)-DP even when each release, its noise
too, was chosen in reply to earlier ones. The order must not be chosen afterwards: the least epsilon
over many orders at a stop that depends on the data is not covered.

The divergences are written out here for whole orders, where they are short and have no integral to
approximate; a test compares them with dp-accounting's. Whole orders cost little: the budget at the
best order is flat around it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from common.errors import AccountingError
from common.privacy.accountant import check_record, elementary_intervals
from common.privacy.mechanism import DiscreteGaussianCounts, DpSgdSteps, MechanismRecord

ORDER_MAX: Final = 4096


@dataclass(frozen=True)
class RenyiFilter:
    """A filter for (epsilon, delta).

    Args:
        epsilon, delta: what everything that passes keeps together, for each patient.
        order: of the Rényi divergence, a whole number from 2.
        budget: the most that the divergences at this order may sum to.

    Source: Feldman and Zrnic 2021 (arXiv:2008.11193), theorem 3.1; Whitehouse et al. 2023
    (arXiv:2203.05481). A patient's sum is over the releases that touch the patient's part, which
    does not depend on data.
    """

    epsilon: float
    delta: float
    order: int
    budget: float

    @classmethod
    def for_target(cls, epsilon: float, delta: float) -> Self:
        """Return the filter whose order lets the most Gaussian releases pass.

        Raises:
            AccountingError: unless epsilon is above 0 and delta in (0, 1), or when delta is so
                small against epsilon that no order leaves a budget.
        """
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise _no_filter(epsilon, delta)
        # The divergence of a Gaussian release grows with the order, so budget / order counts them.
        order = max(range(2, ORDER_MAX + 1), key=lambda a: (epsilon - _excess(a, delta)) / a)
        budget = epsilon - _excess(order, delta)
        if budget <= 0:
            raise _no_filter(epsilon, delta)
        return cls(epsilon, delta, order, budget)

    def spent(self, records: Mapping[MechanismRecord, int]) -> float:
        """Return the sum of divergences at the order, for the patient whom the records touch most.

        Args:
            records: each with how often it was or will be done.

        Raises:
            AccountingError: for a record of another kind, or with impossible numbers.
        """
        return max(
            (
                math.fsum(
                    count * renyi_divergence(record, self.order)
                    for record, count in covering.items()
                )
                for _, covering in elementary_intervals(records)
            ),
            default=0.0,
        )

    def is_within(self, records: Mapping[MechanismRecord, int]) -> bool:
        """Return whether all of these may be done together; raises as `spent`."""
        return self.spent(records) <= self.budget


def renyi_divergence(record: MechanismRecord, order: int) -> float:
    """Return the Rényi divergence of one record at a whole order from 2; raises `AccountingError`.

    Source: Mironov 2017, proposition 7 (Gaussian); Mironov, Talwar and Zhang 2019, section 3.3
    (Poisson-sampled Gaussian); Canonne, Kamath and Steinke 2020, proposition 5 (discrete Gaussian:
    at most the Gaussian's).
    """
    check_record(record)
    if isinstance(record, DpSgdSteps):
        sampled = _sampled_gaussian(record.noise_multiplier, record.sampling_probability, order)
        return record.steps * sampled
    cells = record.cells_per_patient_max if isinstance(record, DiscreteGaussianCounts) else 1
    return cells * order / (2 * record.noise_multiplier**2)


@lru_cache(maxsize=4096)
def _sampled_gaussian(noise_multiplier: float, probability: float, order: int) -> float:
    if probability == 1:
        return order / (2 * noise_multiplier**2)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + k * math.log(probability)
        + (order - k) * math.log1p(-probability)
        + k * (k - 1) / (2 * noise_multiplier**2)
        for k in range(order + 1)
    ]
    most = max(terms)
    log_moment = most + math.log(math.fsum(math.exp(term - most) for term in terms))
    return max(log_moment, 0.0) / (order - 1)


def _excess(order: int, delta: float) -> float:
    """Return epsilon at delta less the divergence: Canonne, Kamath and Steinke 2020, prop. 12."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def _no_filter(epsilon: float, delta: float) -> AccountingError:
    return AccountingError(
        "no Rényi filter keeps this limit",
        expected="epsilon above 0, delta in (0, 1), and not both very small",
        arrived=f"epsilon={epsilon}, delta={delta}",
        todo='raise epsilon_total or delta_total in site.toml, or set composition = "planned"',
    )
