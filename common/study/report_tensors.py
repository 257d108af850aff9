"""The count tensors of a plan's monitoring reports: names, shapes, noise, and their one schema.

Every patient of a report is in exactly one cell of each tensor. So a family of T tensors has an L2
sensitivity of sqrt(T), and its record says `cells_per_patient_max` = T.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from common import limits
from common.canonical import Canonical, canonical_float, digest_record
from common.ids import Digest
from common.privacy.accountant import epsilon_of_counted
from common.privacy.mechanism import DiscreteGaussianCounts, MechanismRecord, PatientPart
from common.privacy.noise_search import GRID, gaussian_guess, smallest_noise
from common.study.monitoring import Monitoring
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.study.plan_bytes import plan_digest

LABELS = 2


class ReportKind(enum.Enum):
    """What a monitoring report tells of one period.

    `REFERENCE`, once: held-out patients of training. `CASE_MIX`: what is known when a period ends.
    `OUTCOME`: performance, when the labels of its patients are complete.
    """

    REFERENCE = "reference"
    CASE_MIX = "case-mix"
    OUTCOME = "outcome"


class TensorFamily(enum.Enum):
    """Tensors that share one noise; the values are the names of `ReportShares`' fields."""

    SENTINELS = "sentinels"
    SCORES = "scores"
    GROUP_SCORES = "group_scores"
    OVERALL = "overall"
    GROUPS = "groups"


FAMILIES_OF_KIND = {
    ReportKind.REFERENCE: (TensorFamily.SENTINELS, TensorFamily.OVERALL, TensorFamily.GROUPS),
    ReportKind.CASE_MIX: (
        TensorFamily.SENTINELS,
        TensorFamily.SCORES,
        TensorFamily.GROUP_SCORES,
    ),
    ReportKind.OUTCOME: (TensorFamily.OVERALL, TensorFamily.GROUPS),
}


@dataclass(frozen=True)
class ReportTensor:
    """One tensor of counts.

    Args:
        family: whose noise it has.
        subject: the feature whose bins or groups it counts; empty for all patients.
        shape: sentinel [bins, and last the missing]; scores [score bins]; group scores [levels,
            group bins]; overall [label, score bins]; groups [levels, label, group bins]. Levels end
            with the missing one where the plan lets the feature be missing.
        noise_multiplier: standard deviation parameter of each cell's discrete Gaussian, as one
            site draws it.
    """

    family: TensorFamily
    subject: str
    shape: tuple[int, ...]
    noise_multiplier: float

    @property
    def name(self) -> str:
        """`overall`, `sentinels/age`, `groups/sex` and so on."""
        return f"{self.family.value}/{self.subject}" if self.subject else self.family.value

    @property
    def cells(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)


def report_tensors(plan: StudyPlan, kind: ReportKind) -> tuple[ReportTensor, ...]:
    """Return the tensors of one kind of report, in the order of their cells.

    Raises:
        AccountingError: when no noise keeps the plan's epsilon per report.
    """
    if plan.monitoring is None:
        return ()
    noise = _family_noise(plan.monitoring, len(plan.fairness_groups), plan.privacy.delta)
    return tuple(
        ReportTensor(family, subject, shape, noise[family])
        for family in FAMILIES_OF_KIND[kind]
        for subject, shape in _shapes(plan, plan.monitoring, family)
    )


def report_mechanisms(
    plan: StudyPlan, kind: ReportKind, *, part: PatientPart | None = None
) -> tuple[DiscreteGaussianCounts, ...]:
    """Return the mechanism records of one kind of report: one for each family of tensors.

    Args:
        part: the patients who are counted; all of them when not given.
    """
    counted: dict[TensorFamily, tuple[float, int]] = {}
    for tensor in report_tensors(plan, kind):
        _, before = counted.get(tensor.family, (0.0, 0))
        counted[tensor.family] = (tensor.noise_multiplier, before + 1)
    return tuple(
        DiscreteGaussianCounts(noise, number, part or PatientPart())
        for noise, number in counted.values()
    )


def schema_digest(plan: StudyPlan, kind: ReportKind) -> Digest:
    """Return the digest of all that gives a report's integers their meaning."""
    schema: dict[str, Canonical] = {
        "version": 1,
        "plan_digest": plan_digest(plan),
        "kind": kind.value,
        "tensors": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "noise_multiplier": canonical_float(tensor.noise_multiplier),
            }
            for tensor in report_tensors(plan, kind)
        ],
    }
    return digest_record("report-schema", schema)


def sentinel_edges(plan: StudyPlan, feature: NumericFeature) -> tuple[float, ...]:
    """Return the inner edges of a numeric sentinel's bins, in the feature's unit, rising."""
    monitoring = plan.monitoring
    if monitoring is None:
        return ()
    for item in monitoring.sentinel_edges:
        if item.feature == feature.name:
            return item.edges
    low, high = feature.clip
    width = (high - low) / monitoring.bins
    return tuple(low + width * place for place in range(1, monitoring.bins))


def noisy_patients(plan: StudyPlan, kind: ReportKind, counts: npt.NDArray[np.int64]) -> float:
    """Return how many patients a noised report is about.

    Each tensor's total is their number with the noise of its cells; the totals' mean, weighted by
    one over the noise's variance, has the least.

    Args:
        plan, kind: of the report.
        counts: [cells], tensor after tensor.
    """
    place, total, weights = 0, 0.0, 0.0
    for tensor in report_tensors(plan, kind):
        weight = 1 / (tensor.cells * tensor.noise_multiplier**2)
        total += weight * float(counts[place : place + tensor.cells].sum())
        weights += weight
        place += tensor.cells
    return total / weights if weights else 0.0


def level_count(feature: CategoricalFeature) -> int:
    """Return the number of a fairness group's levels, the missing one last where it may be."""
    return len(feature.levels) + (feature.missing == "indicator")


def _shapes(
    plan: StudyPlan, monitoring: Monitoring, family: TensorFamily
) -> Sequence[tuple[str, tuple[int, ...]]]:
    features = {feature.name: feature for feature in plan.features}
    scores, in_groups = len(monitoring.score_edges) + 1, len(monitoring.group_edges) + 1
    if family is TensorFamily.SCORES:
        return [("", (scores,))]
    if family is TensorFamily.OVERALL:
        return [("", (LABELS, scores))]
    if family is TensorFamily.SENTINELS:
        watched = [features[name] for name in monitoring.sentinel_features]
        return [(feature.name, (_sentinel_bins(plan, feature) + 1,)) for feature in watched]
    inner = (in_groups,) if family is TensorFamily.GROUP_SCORES else (LABELS, in_groups)
    found = []
    for group in plan.fairness_groups:
        feature = features[group.feature]
        if isinstance(feature, CategoricalFeature):  # P15 asks that all are
            found.append((feature.name, (level_count(feature), *inner)))
    return found


def _sentinel_bins(plan: StudyPlan, feature: NumericFeature | CategoricalFeature) -> int:
    if isinstance(feature, CategoricalFeature):
        return len(feature.levels)
    return len(sentinel_edges(plan, feature)) + 1


@lru_cache(maxsize=64)
def _family_noise(monitoring: Monitoring, groups: int, delta: float) -> dict[TensorFamily, float]:
    """Return each family's noise, so that the reports of a period tell as much as one count.

    A family of T tensors with share w of rho has noise z * sqrt(T / w); all together are then as
    one release of sensitivity 1 with noise z (Bun and Steinke 2016, proposition 1.6 and lemma 1.7).
    """
    tensors = {
        TensorFamily.SENTINELS: len(monitoring.sentinel_features),
        TensorFamily.SCORES: 1,
        TensorFamily.GROUP_SCORES: groups,
        TensorFamily.OVERALL: 1,
        TensorFamily.GROUPS: groups,
    }
    weights = {
        family: float(getattr(monitoring.shares, family.value))
        for family, number in tensors.items()
        if number
    }
    total = sum(weights.values())
    factors = {
        family: math.sqrt(tensors[family] * total / weight) for family, weight in weights.items()
    }

    def noise_of(base: float) -> dict[TensorFamily, float]:
        return {
            family: math.ceil(base * factor * GRID) / GRID for family, factor in factors.items()
        }

    def spent(base: float) -> float:
        counted: dict[MechanismRecord, int] = {}
        for family, noise in noise_of(base).items():
            record = DiscreteGaussianCounts(noise, tensors[family])
            counted[record] = counted.get(record, 0) + 1
        return epsilon_of_counted(counted, delta=delta)

    epsilon = monitoring.epsilon_per_report
    noise_max = limits.DISCRETE_NOISE_MULTIPLIER_MAX / max(factors.values()) - 1
    guess = gaussian_guess(epsilon, delta)
    base = smallest_noise(spent, epsilon, guess=guess, noise_multiplier_max=noise_max)
    if monitoring.mode == "sum":
        return {family: _of_one_site(noise, monitoring) for family, noise in noise_of(base).items()}
    return noise_of(base)


def _of_one_site(noise_multiplier: float, monitoring: Monitoring) -> float:
    """Return a site's own noise, of which the least number of sites together have the one given.

    Below `limits.SUM_NOISE_MULTIPLIER_MIN` a sum of discrete Gaussians is no longer close to one.
    """
    of_one = noise_multiplier / math.sqrt(monitoring.sum_sites_min)
    return max(math.ceil(of_one * GRID) / GRID, limits.SUM_NOISE_MULTIPLIER_MIN)
