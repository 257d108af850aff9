"""Ours: the site's own path, from MEDS files to the matrix that training reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

# Imported late by the reader; the clock of the comparison counts no program's imports.
import flexible_schema.exceptions  # noqa: F401
import meds.schema  # noqa: F401
import numpy as np
import numpy.typing as npt
import pyarrow.parquet  # noqa: F401

from benchmarks.features.generate import DATA_UNTIL
from common.study.plan import NumericFeature, StudyPlan
from site_client.features.event_patients import read_event_patients
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping


def source_of(folder: Path) -> MedsFolder:
    """Return the generated data set as a site declares it."""
    mapping = MedsMapping(kind="meds", path=folder.name, unit_column="unit", data_until=DATA_UNTIL)
    return MedsFolder(mapping, folder=folder.parent)


def features_of(
    folder: Path, plan: StudyPlan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_], Callable[[], FeatureMatrix]]:
    """Return values [rows, features], the rows' patients, and what makes the matrix of them."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        table = read_event_patients(plan, source_of(folder), scratch=Path(scratch)).table
    # As columns in memory, like the rivals' frames.
    values = np.empty((len(plan.features), len(table.subject_ids)))
    for place, item in enumerate(plan.features):
        if isinstance(item, NumericFeature):
            values[place] = table.numeric[item.name]
        else:
            levels = table.levels[item.name]
            values[place] = np.where(levels < 0, np.nan, levels)
    subjects = np.array(table.subject_ids)
    return values.T, subjects, lambda: build_matrix(table, plan, salt=bytes(32))
