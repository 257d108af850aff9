"""The contingency tables of a selection, decided by the plan alone: classes, shapes and order.

Every training patient is in exactly one cell of each table, so a count of T tables has an L2
sensitivity of sqrt(T), and its record says `cells_per_patient_max` = T.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.study.plan import CategoricalFeature, NumericFeature, Selection, StudyPlan

SINGLE_ROUND: Final = 1
"""Counts each candidate's classes by outcome."""
JOINT_ROUND: Final = 2
"""Counts pairs of candidates by outcome."""
LABELS: Final = 2
_COUNTING: Final = frozenset({"any", "count"})


@dataclass(frozen=True)
class ContingencyTable:
    """Patients by the classes of one or two candidates and by outcome.

    Args:
        candidates: one or two places in the plan's features, rising.
        shape: classes of each, and `LABELS`.
    """

    candidates: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)


def has_absent_class(feature: NumericFeature | CategoricalFeature) -> bool:
    """Whether class 0 of a candidate is the patients without it.

    A value that must always be there has no such class. Who has none of the events that are
    counted has the value 0, and is without the code all the same.
    """
    return feature.missing == "indicator" or is_counting(feature)


def is_counting(feature: NumericFeature | CategoricalFeature) -> bool:
    """Whether a value of 0 means that the patient has none of the codes."""
    return isinstance(feature, NumericFeature) and feature.aggregate in _COUNTING


def class_count(feature: NumericFeature | CategoricalFeature, selection: Selection) -> int:
    """Return the number of a candidate's classes, the absent one among them.

    Numeric: bins of equal width between the clip bounds; of `any`, which is 0 or 1, one class
    beside the absent one. Categorical: the levels.
    """
    if isinstance(feature, CategoricalFeature):
        present = len(feature.levels)
    else:
        present = 1 if feature.aggregate == "any" else selection.bins
    return present + has_absent_class(feature)


def count_tables(plan: StudyPlan, candidates: Sequence[int] = ()) -> tuple[ContingencyTable, ...]:
    """Return the tables of one round of a plan that selects, in the order of their cells.

    Args:
        candidates: places of the features whose pairs are counted; none: every feature alone.
    """
    selection = plan.selection
    if selection is None:
        return ()
    classes = [class_count(feature, selection) for feature in plan.features]
    if not candidates:
        return tuple(
            ContingencyTable((place,), (number, LABELS)) for place, number in enumerate(classes)
        )
    return tuple(
        ContingencyTable((first, second), (classes[first], classes[second], LABELS))
        for first, second in itertools.combinations(candidates, 2)
    )


def cell_count(tables: Sequence[ContingencyTable]) -> int:
    """Return the number of cells of all tables."""
    return sum(table.cells for table in tables)


def always_kept(plan: StudyPlan) -> tuple[int, ...]:
    """Return the places of the features that a shortened plan cannot do without, rising.

    The rules ask that fairness groups and sentinels are features (P15, P16).
    """
    names = {group.feature for group in plan.fairness_groups}
    if plan.monitoring is not None:
        names.update(plan.monitoring.sentinel_features)
    if plan.selection is not None:
        names.update(plan.selection.always_keep)
    return tuple(place for place, item in enumerate(plan.features) if item.name in names)
