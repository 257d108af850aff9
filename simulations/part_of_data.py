"""The patients of one data set who belong to one virtual site."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.study.plan import StudyPlan
from site_client.sources.table import MISSING_LEVEL, FeatureCounts, PatientTable


class Data(Protocol):
    """What can be divided: a `DataSet`, or anything else with a plan's rows."""

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows."""
        ...


class PartOfData:
    """The patients of a data set who belong to one virtual site.

    Args:
        data: the whole.
        subject_ids: whose rows belong here.
        question: of the plan for which `table` was cut.
        table: their rows under that plan.
    """

    def __init__(
        self, data: Data, subject_ids: frozenset[str], *, question: str, table: PatientTable
    ) -> None:
        self._data = data
        self._subject_ids = subject_ids
        self._cut = {question: table}

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows of these patients; raises `DataSourceError`."""
        asked = question_of(plan)
        if asked not in self._cut:
            whole = self._data.rows(plan)
            places = [
                place for place, who in enumerate(whole.subject_ids) if who in self._subject_ids
            ]
            self._cut[asked] = rows_at(whole, np.array(places, np.int64))
        return self._cut[asked]


def question_of(plan: StudyPlan) -> str:
    """Return what of a plan decides its rows: cohort, features, label and rows of a patient."""
    rows_max = plan.privacy.rows_per_patient_max
    return plan.model_dump_json(include={"cohort", "features", "label"}) + str(rows_max)


def rows_at(table: PatientTable, places: npt.NDArray[np.int64]) -> PatientTable:
    """Return some rows of a table, with counts of what is recorded in them."""
    numeric = {name: values[places] for name, values in table.numeric.items()}
    levels = {name: values[places] for name, values in table.levels.items()}
    # A text that was implausible or unknown is missing in the whole's values: it counts as such.
    missing = {name: int(np.isnan(values).sum()) for name, values in numeric.items()}
    missing |= {name: int((values == MISSING_LEVEL).sum()) for name, values in levels.items()}
    return replace(
        table,
        subject_ids=tuple(table.subject_ids[place] for place in places.tolist()),
        numeric=numeric,
        levels=levels,
        label=table.label[places],
        counts={
            name: FeatureCounts(recorded=len(places) - count, missing=count)
            for name, count in missing.items()
        },
        unlabelled=0,
        index_time=None if table.index_time is None else table.index_time[places],
    )
