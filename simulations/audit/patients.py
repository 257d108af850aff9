"""Generated patients with the plan's own features: no real patient is ever audited."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.study.columns import bins_of_feature
from common.study.plan import NumericFeature, StudyPlan
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.sources.table import MISSING_LEVEL, PatientTable

MISSING_FRACTION: Final = 0.05
EVENT_FRACTION: Final = 0.3
_SALT: Final = b"the audit's patients are invented"


def generate_patients(plan: StudyPlan, count: int, rng: np.random.Generator) -> FeatureMatrix:
    """Return a feature matrix, built by the product from invented values.

    Values fill each feature's plausible range, so that every clip is met. The label is a coin: the
    audit is about what a step does with a patient, not about what a model learns.

    Args:
        plan: names the features.
        count: number of patients.
        rng: of the simulation.
    """
    numeric: dict[str, npt.NDArray[np.float64]] = {}
    levels: dict[str, npt.NDArray[np.int64]] = {}
    for feature in plan.features:
        bins = bins_of_feature(feature)
        shape = (count, bins) if bins > 1 else (count,)
        is_missing = rng.random(shape) < (
            MISSING_FRACTION if feature.missing == "indicator" else 0.0
        )
        if isinstance(feature, NumericFeature):
            values = rng.uniform(*feature.plausible_range, size=shape)
            numeric[feature.name] = np.where(is_missing, np.nan, values)
        else:
            chosen = rng.integers(len(feature.levels), size=count)
            levels[feature.name] = np.where(is_missing, MISSING_LEVEL, chosen)
    table = PatientTable(
        subject_ids=tuple(f"generated-{number}" for number in range(count)),
        numeric=numeric,
        levels=levels,
        label=(rng.random(count) < EVENT_FRACTION).astype(np.float32),
        counts={},
        unlabelled=0,
    )
    return build_matrix(table, plan, salt=_SALT)
