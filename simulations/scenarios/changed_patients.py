"""A hospital's patients after something changed there: drift, another unit, another prevalence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from common.study.columns import MISSING_SUFFIX
from common.study.plan import NumericFeature, StudyPlan
from site_client.features.matrix import FeatureMatrix

Array64 = npt.NDArray[np.float64]


def change_values(
    patients: FeatureMatrix, plan: StudyPlan, feature: str, change: Callable[[Array64], Array64]
) -> FeatureMatrix:
    """Return patients whose recorded values of one feature are changed.

    Args:
        patients: features as the model sees them.
        plan: names the feature and its clip bounds.
        feature: a numeric one.
        change: of values in the plan's unit; the result is clipped to the bounds again.
    """
    [(low, high)] = [
        item.clip
        for item in plan.features
        if isinstance(item, NumericFeature) and item.name == feature
    ]
    x = patients.x.copy()
    for place, name in enumerate(patients.columns):
        if name != feature and not name.startswith(f"{feature}["):
            continue
        values = low + (x[..., place].astype(np.float64) + 1) / 2 * (high - low)
        changed = (np.clip(change(values), low, high) - low) / (high - low) * 2 - 1
        indicator = name.replace(feature, feature + MISSING_SUFFIX, 1)
        if indicator in patients.columns:
            is_missing = x[..., patients.columns.index(indicator)] > 0
            changed = np.where(is_missing, x[..., place], changed)
        x[..., place] = changed
    return FeatureMatrix(patients.columns, x, patients.y, patients.part, patients.weight)


def change_prevalence(
    patients: FeatureMatrix, share: float, rng: np.random.Generator
) -> FeatureMatrix:
    """Return as many patients, drawn again so that this share of them has the outcome.

    Args:
        patients: of a hospital; unchanged when all or none have the outcome.
        share: of patients with the outcome.
        rng: of the scenario.
    """
    outcome = patients.y if patients.y.ndim == 1 else patients.y[:, 0]
    cases, others = np.flatnonzero(outcome == 1), np.flatnonzero(outcome == 0)
    if not len(cases) or not len(others):
        return patients
    count = round(share * len(outcome))
    drawn = np.concatenate([rng.choice(cases, count), rng.choice(others, len(outcome) - count)])
    rng.shuffle(drawn)
    return FeatureMatrix(
        patients.columns,
        patients.x[drawn],
        patients.y[drawn],
        patients.part[drawn],
        None if patients.weight is None else patients.weight[drawn],
    )
