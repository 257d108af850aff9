"""The two limits of a site and how each is checked, as pure functions of what is charged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.errors import BudgetError
from common.privacy.accountant import epsilon_of_counted
from common.privacy.mechanism import MechanismRecord
from common.privacy.renyi_filter import RenyiFilter

Charges = Counter[MechanismRecord]
"""Mechanism records, each with how often it was or will be done."""


class Composition(StrEnum):
    """How the limit over all studies is kept; one study's plan is fixed, so its own needs none."""

    PLANNED = "planned"  # tight (PLD); no study's noise was chosen in reply to another's releases
    ADAPTIVE = "adaptive"  # a Rényi filter; holds also when later plans reply to earlier releases


@dataclass(frozen=True)
class SpendingLimits:
    """What a study's charges are checked against.

    Args:
        epsilon_study_max: the lesser of the plan's epsilon and the site's limit for one study.
        delta: at which the study's epsilon is stated.
        epsilon_total_max: the site's limit over all studies.
        delta_total: at which the total is stated.
        composition: how the total is kept.
        study_limit: what `site.toml` calls the limit that `epsilon_study_max` may come from.
    """

    epsilon_study_max: float
    delta: float
    epsilon_total_max: float
    delta_total: float
    composition: Composition = Composition.PLANNED
    study_limit: str = "epsilon_per_study"


def check_study(charges: Mapping[MechanismRecord, int], limits: SpendingLimits) -> None:
    """R11: a study's charges are within its limit; raises `BudgetError`, `AccountingError`."""
    epsilon = epsilon_of_counted(charges, delta=limits.delta)
    if not epsilon <= limits.epsilon_study_max:
        raise _over("R11", limits.study_limit, epsilon, limits.epsilon_study_max, limits.delta)


def check_total(charges: Mapping[MechanismRecord, int], limits: SpendingLimits) -> None:
    """R12: all studies' charges are within their limit; raises as `check_study`."""
    most, delta = limits.epsilon_total_max, limits.delta_total
    if limits.composition is Composition.PLANNED:
        epsilon = epsilon_of_counted(charges, delta=delta)
        if not epsilon <= most:
            raise _over("R12", "epsilon_total", epsilon, most, delta)
        return
    if not most > 0:
        raise _over("R12", "epsilon_total", 0.0, most, delta)
    renyi = RenyiFilter.for_target(most, delta)
    if not renyi.is_within(charges):
        raise BudgetError(
            "the release would pass the limit epsilon_total",
            expected=f"divergences of at most {renyi.budget:.4f} at order {renyi.order}, which "
            f"keeps epsilon {most:.4f} at delta {delta:g} however plans were chosen",
            arrived=f"{renyi.spent(charges):.4f} with all that is planned",
            todo=_TODO.format(limit="epsilon_total"),
            number="R12",
        )


_TODO = (
    "nothing was released; hospital IT may raise {limit} in site.toml, or the site takes no part"
)


def _over(number: str, limit: str, epsilon: float, most: float, delta: float) -> BudgetError:
    return BudgetError(
        f"the release would pass the limit {limit}",
        expected=f"at most epsilon {most:.4f} at delta {delta:g}",
        arrived=f"epsilon {epsilon:.4f} with all that is planned",
        todo=_TODO.format(limit=limit),
        number=number,
    )
