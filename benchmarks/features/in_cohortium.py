"""Ours: the site's own path, from MEDS files to the matrix that training reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.features.generate import DATA_UNTIL
from common.study.plan import NumericFeature, StudyPlan
from site_client.features.event_patients import read_event_patients
from site_client.features.matrix import build_matrix
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping


def source_of(folder: Path) -> MedsFolder:
    """Return the generated data set as a site declares it."""
    mapping = MedsMapping(
        kind="meds", path=folder.name, unit_column="unit", data_until=DATA_UNTIL
    )
    return MedsFolder(mapping, folder=folder.parent)


def features_of(
    folder: Path, plan: StudyPlan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_], int]:
    """Return values [rows, features], the rows' patients, and the matrix's columns."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        found = read_event_patients(plan, source_of(folder), scratch=Path(scratch))
    table = found.table
    matrix = build_matrix(table, plan, salt=bytes(32))
    columns = [
        table.numeric[item.name]
        if isinstance(item, NumericFeature)
        else np.where(table.levels[item.name] < 0, np.nan, table.levels[item.name])
        for item in plan.features
    ]
    return np.stack(columns, axis=1), np.array(table.subject_ids), len(matrix.columns)
