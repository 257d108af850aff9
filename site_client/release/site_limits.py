"""The site's own limits, which win over any plan's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from common.privacy.spending_limits import Composition, SpendingLimits
from common.study.plan import StudyPlan
from site_client.config import LimitsSection


@dataclass(frozen=True)
class SiteLimits:
    """The limits of `site.toml`.

    Args:
        epsilon_per_study, epsilon_total, delta_total, composition: see `LimitsSection`.
        epsilon_monitoring: for all reports about one study's model; None: as much as the study.
    """

    epsilon_per_study: float
    epsilon_total: float
    delta_total: float
    composition: Composition = Composition.PLANNED
    epsilon_monitoring: float | None = None

    @classmethod
    def of(cls, section: LimitsSection) -> Self:
        """Return the limits that `site.toml` sets."""
        return cls(
            epsilon_per_study=section.epsilon_per_study,
            epsilon_total=section.epsilon_total,
            delta_total=section.delta_total,
            composition=Composition(section.composition),
            epsilon_monitoring=section.epsilon_monitoring,
        )

    def for_plan(self, plan: StudyPlan) -> SpendingLimits:
        """Return what a study with this plan is checked against."""
        return SpendingLimits(
            epsilon_study_max=min(plan.privacy.epsilon, self.epsilon_per_study),
            delta=plan.privacy.delta,
            epsilon_total_max=self.epsilon_total,
            delta_total=self.delta_total,
            composition=self.composition,
        )

    def for_monitoring(self, plan: StudyPlan) -> SpendingLimits:
        """Return what the reports about a study's model are checked against."""
        return SpendingLimits(
            epsilon_study_max=self.epsilon_monitoring or self.epsilon_per_study,
            delta=plan.privacy.delta,
            epsilon_total_max=self.epsilon_total,
            delta_total=self.delta_total,
            composition=self.composition,
            study_limit="epsilon_monitoring_per_study",
        )
