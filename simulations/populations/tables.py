"""Generated records as a vendor's CSV tables, read as event tables."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from simulations.populations.codes import CODES
from simulations.populations.columns import (
    births,
    instants,
    numbers,
    of_events,
    subject_ids,
    words,
)
from simulations.populations.contacts import VISIT_CLASSES
from simulations.populations.records import Records
from simulations.populations.units import UNITS
from simulations.populations.variables import SMOKING

_TIME: Final = "%Y-%m-%d %H:%M:%S"
_COLUMNS: Final = {
    "patient": ("patient", "born_on", "sex", "died_at"),
    "visit": ("patient", "class", "begins_at", "ends_at"),
    "measurement": ("patient", "at", "code", "value", "unit"),
    "diagnosis": ("patient", "at", "code"),
    "drug": ("patient", "at", "code"),
    "answer": ("patient", "at", "code", "answer"),
}
_TABLE_OF: Final = {
    "laboratory": "measurement",
    "vital": "measurement",
    "condition": "diagnosis",
    "drug": "drug",
    "answer": "answer",
}


class TablesWriter:
    """Writes one hospital.

    Args:
        folder: new or empty.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {
            name: csv.CSVWriter(
                folder / f"{name}.csv", pa.schema([(column, pa.string()) for column in columns])
            )
            for name, columns in _COLUMNS.items()
        }

    def add(self, records: Records) -> None:
        """Write a block of patients."""
        patients, contacts, events = records.history.patients, records.contacts, records.events
        subject = subject_ids(patients)
        self._write(
            "patient",
            pa.array(subject),
            births(patients),
            words(patients.is_male.astype(np.int64), ["F", "M"]),
            instants(records.died_s),
        )
        self._write(
            "visit",
            pa.array(subject[contacts.patient]),
            words(contacts.visit_class, VISIT_CLASSES),
            instants(contacts.start_s),
            instants(contacts.end_s),
        )
        who, at = pa.array(of_events(records)), instants(events.time_s)
        code = words(events.code, [written(place) for place in range(len(CODES))])
        table = np.array([list(_COLUMNS).index(_TABLE_OF[item.kind]) for item in CODES])[
            events.code
        ]
        columns = {
            "value": numbers(events.value),
            "unit": words(events.unit, UNITS),
            "answer": words(events.answer, list(SMOKING)),
        }
        for place, (name, wanted) in enumerate(_COLUMNS.items()):
            rows = pa.array(np.flatnonzero(table == place))
            if "code" in wanted:
                found = {"patient": who, "at": at, "code": code, **columns}
                self._write(name, *(found[column].take(rows) for column in wanted))

    def close(self) -> None:
        """Finish the files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, *columns: pa.Array) -> None:
        as_text = [column.cast(pa.string()) for column in columns]
        self._files[name].write_table(pa.table(as_text, names=list(_COLUMNS[name])))


def tables_source(path: str, data_until: datetime.date) -> str:
    """Return `[source]` of site.toml."""
    entries = []
    for name in ("measurement", "diagnosis", "drug", "answer"):
        mapped = ", ".join(
            f'"{written(place)}" = "{item.meaning}"'
            for place, item in enumerate(CODES)
            if _TABLE_OF[item.kind] == name and item.meaning
        )
        entries.append(
            f'\n[[source.events]]\nfile = {{ path = "{path}/{name}.csv" }}\nsubject = "patient"\n'
            f'time = {{ column = "at", formats = ["{_TIME}"] }}\n'
            f'code = {{ column = "code", values = {{ {mapped} }} }}\n'
        )
        if name == "measurement":
            entries.append('value = "value"\nunit = { column = "unit" }\n')
        if name == "answer":
            answers = ", ".join(f'"{said}" = "SNOMED/{code}"' for said, code in SMOKING.items())
            entries.append(f'text = {{ column = "answer", values = {{ {answers} }} }}\n')
    for event, column in (("Visit", "begins_at"), ("VisitEnd", "ends_at")):
        mapped = ", ".join(f'"{name}" = "{event}/{name}"' for name in VISIT_CLASSES)
        entries.append(
            f'\n[[source.events]]\nfile = {{ path = "{path}/visit.csv" }}\nsubject = "patient"\n'
            f'time = {{ column = "{column}", formats = ["{_TIME}"] }}\n'
            f'code = {{ column = "class", values = {{ {mapped} }} }}\n'
        )
    return (
        f'[source]\nkind = "event_tables"\ndata_until = {data_until}\n\n[source.subjects]\n'
        f'file = {{ path = "{path}/patient.csv" }}\nsubject = "patient"\n'
        'birth = { column = "born_on", formats = ["%Y-%m-%d"] }\n'
        'sex = { column = "sex", values = { F = "female", M = "male" } }\n'
        f'death = {{ column = "died_at", formats = ["{_TIME}"] }}\n' + "".join(entries)
    )


def written(place: int) -> str:
    """Return the cell for a place in `CODES`: the hospital's own code, or vocabulary and code."""
    item = CODES[place]
    return item.code if item.is_local else f"{item.vocabulary}:{item.code}"
