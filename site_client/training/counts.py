"""Count the training patients in a selection's tables: exact, then with discrete Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from common.privacy.discrete_gaussian import discrete_gaussian, variance_of
from common.privacy.mechanism import DiscreteGaussianCounts
from common.study.columns import MISSING_SUFFIX, ColumnPlaces, value_names
from common.study.contingency import (
    ContingencyTable,
    class_count,
    has_absent_class,
    is_counting,
)
from common.study.plan import CategoricalFeature, NumericFeature, Selection, StudyPlan
from site_client.features.matrix import FeatureMatrix
from site_client.training.randomness import Randomness

Classes = npt.NDArray[np.int64]


def count_patients(
    patients: FeatureMatrix,
    tables: Sequence[ContingencyTable],
    *,
    plan: StudyPlan,
    mechanism: DiscreteGaussianCounts,
    randomness: Randomness,
) -> tuple[int, ...]:
    """Return the noised counts of every cell, table after table.

    Args:
        patients: who train, one sample each: every patient is in one cell of each table.
        tables: as many as the mechanism's cells of one patient.
        plan: selects.
        mechanism: the noise of each cell.
        randomness: of this release.
    """
    variance = variance_of(mechanism.noise_multiplier)
    exact = exact_counts(patients, tables, plan=plan)
    return tuple(
        int(count) + discrete_gaussian(variance, randomness.noise_words) for count in exact
    )


def exact_counts(
    patients: FeatureMatrix, tables: Sequence[ContingencyTable], *, plan: StudyPlan
) -> npt.NDArray[np.int64]:
    """Return the exact counts [cells], table after table; never released."""
    classes = candidate_classes(patients, plan)
    label = patients.y.astype(np.int64)
    counted = []
    for table in tables:
        places = (*(classes[candidate] for candidate in table.candidates), label)
        cell = np.ravel_multi_index(places, table.shape)
        counted.append(np.bincount(cell, minlength=table.cells))
    return np.concatenate(counted).astype(np.int64)


def candidate_classes(patients: FeatureMatrix, plan: StudyPlan) -> list[Classes]:
    """Return each candidate's class [patients], which depends on that patient's values alone.

    Of a candidate in time bins the newest value counts, of events the bin with most of them.
    """
    if plan.selection is None:
        return []
    places = ColumnPlaces(plan)
    found: list[Classes] = []
    for feature in plan.features:
        values = [patients.x[:, places.of(feature, name)] for name in value_names(feature)]
        is_missing: npt.NDArray[np.bool_] = np.zeros(len(patients.y), dtype=bool)
        if feature.missing == "indicator":
            missing = patients.x[:, places.of(feature, feature.name + MISSING_SUFFIX)]
            is_missing = np.asarray((missing > 0).all(axis=1))
        made = _classes(feature, values, is_missing, plan.selection)
        # Whatever a row holds, it has a class: no value may end a count, or be outside its table.
        found.append(np.clip(made, 0, class_count(feature, plan.selection) - 1))
    return found


def _classes(
    feature: NumericFeature | CategoricalFeature,
    values: Sequence[npt.NDArray[np.float32]],
    is_missing: npt.NDArray[np.bool_],
    selection: Selection,
) -> Classes:
    """Return the classes [patients] of one feature's columns, each [patients, bins]."""
    if isinstance(feature, CategoricalFeature):
        present = np.stack([column[:, -1] for column in values], axis=1).argmax(axis=1)
    else:
        low, high = feature.clip
        in_bins = np.clip(np.nan_to_num(values[0].astype(np.float64)), -1.0, 1.0)
        newest = in_bins.max(axis=1) if is_counting(feature) else in_bins[:, -1]
        share = (newest + 1) / 2
        number = class_count(feature, selection) - has_absent_class(feature)
        present = np.minimum((share * number).astype(np.int64), number - 1)
        if is_counting(feature):
            is_missing = is_missing | (low + share * (high - low) < 0.5)
    if has_absent_class(feature):
        present = np.where(is_missing, 0, present + 1)
    return np.asarray(present, dtype=np.int64)
