"""Generated records as tables of the OMOP CDM 5.4 in Parquet.

Sex and visits have OMOP's own concepts; all others have numbers above two thousand million, which
the CDM leaves to a site, so that nobody takes them for Athena's.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from simulations.populations.codes import CODES, Kind
from simulations.populations.columns import (
    births,
    numbers,
    of_events,
    subject_ids,
    timestamps,
    words,
)
from simulations.populations.people import Whole
from simulations.populations.records import Records
from simulations.populations.units import UNITS
from simulations.populations.variables import SMOKING

_FIRST_CONCEPT: Final = 2_000_000_001
_FROM_RECORD: Final = 32817
"""OMOP's type concept for what comes from an electronic health record."""
_SEX: Final = (8532, 8507)
_VISITS: Final = (9201, 9203, 9202)
_OWN_CONCEPTS: Final = {
    8507: ("Gender", "M"),
    8532: ("Gender", "F"),
    9201: ("Visit", "IP"),
    9202: ("Visit", "OP"),
    9203: ("Visit", "ER"),
    _FROM_RECORD: ("Type Concept", "OMOP4976890"),
}
_TABLES: Final[dict[str, tuple[str, str, tuple[Kind, ...]]]] = {
    "measurement": ("measurement", "measurement_date", ("laboratory", "vital")),
    "condition_occurrence": ("condition", "condition_start_date", ("condition",)),
    "drug_exposure": ("drug", "drug_exposure_start_date", ("drug",)),
    "observation": ("observation", "observation_date", ("answer",)),
}
"""Table: stem of its concept columns, its date, and the kinds of records in it."""


def _concepts() -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], None] = {}
    for item in CODES:
        if item.standard is not None:
            found[item.standard] = None
            if not item.is_local:
                found[item.vocabulary, item.code] = None
    for code in SMOKING.values():
        found["SNOMED", code] = None
    for unit in UNITS:
        found["UCUM", unit] = None
    return {name: _FIRST_CONCEPT + number for number, name in enumerate(found)}


CONCEPTS: Final = _concepts()
"""Vocabulary and code to concept id."""
_STANDARD: Final = np.array([CONCEPTS[item.standard] if item.standard else 0 for item in CODES])
_AS_RECORDED: Final = np.array(
    [CONCEPTS.get((item.vocabulary, item.code), 0) if item.standard else 0 for item in CODES]
)


class OmopWriter:
    """Writes one hospital.

    Args:
        folder: new or empty.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, parquet.ParquetWriter] = {}
        self._rows: dict[str, int] = {}

    def add(self, records: Records) -> None:
        """Write a block of patients."""
        patients, contacts = records.history.patients, records.contacts
        subject = subject_ids(patients)
        born = births(patients)
        self._write(
            "person",
            {
                "person_id": pa.array(subject),
                "gender_concept_id": pa.array(np.array(_SEX)[patients.is_male.astype(np.int64)]),
                "year_of_birth": pa.compute.year(born),
                "month_of_birth": pa.compute.month(born),
                "day_of_birth": pa.compute.day(born),
                "race_concept_id": _constant(0, len(subject)),
                "ethnicity_concept_id": _constant(0, len(subject)),
            },
        )
        dead = records.died_s >= 0
        self._write(
            "death",
            {
                "person_id": pa.array(subject[dead]),
                **_dated("death_date", records.died_s[dead]),
                "death_type_concept_id": _constant(_FROM_RECORD, int(dead.sum())),
            },
        )
        self._write(
            "visit_occurrence",
            {
                "person_id": pa.array(subject[contacts.patient]),
                "visit_concept_id": pa.array(np.array(_VISITS)[contacts.visit_class]),
                **_dated("visit_start_date", contacts.start_s),
                **_dated("visit_end_date", contacts.end_s),
                "visit_type_concept_id": _constant(_FROM_RECORD, len(contacts.patient)),
            },
        )
        for table in _TABLES:
            self._write(table, _clinical(records, table))

    def close(self) -> None:
        """Write the vocabulary and finish the files."""
        for name, columns in _vocabulary().items():
            parquet.write_table(pa.table(columns), self._folder / f"{name}.parquet")
        for file in self._files.values():
            file.close()

    def _write(self, name: str, columns: dict[str, pa.Array]) -> None:
        rows = len(next(iter(columns.values())))
        first = self._rows.get(name, 0) + 1
        if name not in ("person", "death"):
            key = {f"{name}_id": pa.array(np.arange(first, first + rows))}
            columns = {**key, **columns}
        table = pa.table(columns)
        if name not in self._files:
            self._files[name] = parquet.ParquetWriter(
                self._folder / f"{name}.parquet", table.schema
            )
        self._files[name].write_table(table)
        self._rows[name] = first + rows - 1


def omop_source(path: str, data_until: datetime.date) -> str:
    """Return `[source]` of site.toml."""
    return f'[source]\nkind = "omop"\npath = "{path}"\ndata_until = {data_until}\n'


def _clinical(records: Records, table: str) -> dict[str, pa.Array]:
    stem, date, kinds = _TABLES[table]
    events = records.events
    rows = np.flatnonzero(np.array([item.kind in kinds for item in CODES])[events.code])
    code, time_s = events.code[rows], events.time_s[rows]
    columns = {
        "person_id": pa.array(of_events(records)[rows]),
        f"{stem}_concept_id": pa.array(_STANDARD[code]),
        **_dated(date, time_s),
        f"{stem}_type_concept_id": _constant(_FROM_RECORD, len(rows)),
        f"{stem}_source_value": words(code, [item.code for item in CODES]),
        f"{stem}_source_concept_id": pa.array(_AS_RECORDED[code]),
    }
    if table == "drug_exposure":
        columns |= _dated("drug_exposure_end_date", time_s)
    if table == "measurement":
        unit = np.array([CONCEPTS["UCUM", name] for name in UNITS])[events.unit[rows]]
        columns |= {
            "value_as_number": numbers(events.value[rows]),
            "unit_concept_id": pa.array(unit),
            "unit_source_value": words(events.unit[rows], UNITS),
        }
    if table == "observation":
        answers = np.array([CONCEPTS["SNOMED", code] for code in SMOKING.values()])
        columns["value_as_concept_id"] = pa.array(answers[events.answer[rows]])
    return columns


def _vocabulary() -> dict[str, dict[str, pa.Array]]:
    standard = set(_STANDARD.tolist())
    known = {**CONCEPTS, **{name: number for number, name in _OWN_CONCEPTS.items()}}
    is_source = {
        CONCEPTS[item.vocabulary, item.code]
        for item in CODES
        if item.standard and not item.is_local
    } - standard
    mapped = {
        (CONCEPTS[item.vocabulary, item.code], CONCEPTS[item.standard])
        for item in CODES
        if item.standard is not None and not item.is_local
    }
    pairs = sorted(mapped)
    ids = sorted(known.values())
    return {
        "concept": {
            "concept_id": pa.array(known.values(), pa.int64()),
            "concept_name": pa.array([f"generated: {code}" for _, code in known], pa.string()),
            "vocabulary_id": pa.array([name for name, _ in known], pa.string()),
            "concept_code": pa.array([code for _, code in known], pa.string()),
            "standard_concept": pa.array(
                [None if number in is_source else "S" for number in known.values()], pa.string()
            ),
        },
        "concept_relationship": {
            "concept_id_1": pa.array([one for one, _ in pairs], pa.int64()),
            "concept_id_2": pa.array([other for _, other in pairs], pa.int64()),
            "relationship_id": pa.array(["Maps to"] * len(pairs), pa.string()),
            "invalid_reason": pa.nulls(len(pairs), pa.string()),
        },
        "concept_ancestor": {
            "ancestor_concept_id": pa.array(ids, pa.int64()),
            "descendant_concept_id": pa.array(ids, pa.int64()),
        },
    }


def _constant(number: int, rows: int) -> pa.Array:
    return pa.array(np.full(rows, number))


def _dated(column: str, time_s: Whole) -> dict[str, pa.Array]:
    moment = timestamps(time_s)
    return {column: moment.cast(pa.date32()), column.replace("date", "datetime"): moment}
