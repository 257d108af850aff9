"""What was true of a generated population, written apart from what its hospitals have.

One row for each stay: the true values, the risk and the outcome, and beside each measurement what
the hospital's data say of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from simulations.populations.columns import numbers, subject_ids, timestamps, words
from simulations.populations.hospital import Hospital
from simulations.populations.records import Records
from simulations.populations.variables import (
    AGE_CENTRE_YEARS,
    CONDITION_NAMES,
    DRUG_NAMES,
    INTERCEPT,
    MEASUREMENTS,
    SMOKING,
    WEIGHTS,
)


def truth_table(records: Records) -> pa.Table:
    """Return one row a stay: see docs/synthetic-populations.md for the columns."""
    patients, stays = records.history.patients, records.history.stays
    who = stays.patient
    dies = stays.died_s >= 0
    columns: dict[str, Any] = {
        "subject_id": pa.array(subject_ids(patients)[who]).cast(pa.string()),
        "stay": pa.array(stays.ordinal),
        "admitted": timestamps(stays.admitted_s),
        "index_time": timestamps(stays.index_s),
        "risk": pa.array(stays.risk),
        "log_odds": pa.array(stays.log_odds),
        "dies": pa.array(dies),
        "died": timestamps(stays.died_s),
        "death_is_recorded": pa.array(dies & (records.died_s[who] >= 0)),
        "severity": pa.array(stays.severity),
        "age": pa.array(stays.age_years),
        "sex": words(patients.is_male[who].astype(np.int64), ["female", "male"]),
        "tobacco_smoking": words(patients.smoking[who], list(SMOKING)),
    }
    for place, item in enumerate(MEASUREMENTS):
        columns[item.name] = pa.array(stays.values[:, place])
        columns[f"{item.name}_read"] = numbers(records.read[:, place])
    for place, name in enumerate(CONDITION_NAMES):
        columns[name] = pa.array(patients.conditions[who, place])
        columns[f"{name}_recorded"] = pa.array(records.diagnosed[who, place])
    for place, name in enumerate(DRUG_NAMES):
        columns[name] = pa.array(patients.drugs[who, place])
    return pa.table(columns)


class TruthWriter:
    """Writes the truth of one hospital, a block at a time.

    Args:
        path: of the Parquet file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file: parquet.ParquetWriter | None = None

    def add(self, records: Records) -> None:
        """Write a block of patients."""
        table = truth_table(records)
        if self._file is None:
            self._file = parquet.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()


def write_model(path: Path, hospitals: tuple[Hospital, ...], *, seed: int) -> None:
    """Write the risk model and every dial as JSON: with the software, all that made the data."""
    model = {
        "seed": seed,
        "log_odds": {
            "intercept": INTERCEPT,
            "age_centre_years": AGE_CENTRE_YEARS,
            "weights": dict(WEIGHTS),
            "measurements": {
                item.name: {"unit": item.unit, "centre": item.centre, "per": item.per}
                for item in MEASUREMENTS
            },
        },
        "hospitals": [hospital.model_dump(mode="json") for hospital in hospitals],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
