"""Generated records as a MEDS data set: one shard a block."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from simulations.populations.codes import CODES
from simulations.populations.columns import numbers, of_events, subject_ids, timestamps, words
from simulations.populations.contacts import VISIT_CLASSES
from simulations.populations.drift import DAY_S
from simulations.populations.records import Records
from simulations.populations.units import UNITS
from simulations.populations.variables import SMOKING

SCHEMA: Final = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
        ("unit", pa.string()),
    ]
)
_ANSWERS: Final = [f"SNOMED/{code}" for code in SMOKING.values()]


class MedsWriter:
    """Writes one hospital.

    Args:
        folder: new or empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards = 0
        (folder / "data/generated").mkdir(parents=True)
        (folder / "metadata").mkdir()

    def add(self, records: Records) -> None:
        """Write a block of patients."""
        parts = [_persons(records), _visits(records), _events(records)]
        table = pa.concat_tables(parts).sort_by([("subject_id", "ascending")])
        order = pa.compute.sort_indices(
            table,
            sort_keys=[("subject_id", "ascending", "at_start"), ("time", "ascending", "at_start")],
        )
        path = self._folder / f"data/generated/{self._shards}.parquet"
        parquet.write_table(table.take(order), path)
        self._shards += 1

    def close(self) -> None:
        """Write what the data set says of itself."""
        codes = {site_code(place): item.meaning for place, item in enumerate(CODES)}
        table = pa.table(
            {
                "code": pa.array(codes, pa.string()),
                "description": pa.array(["generated"] * len(codes), pa.string()),
                "parent_codes": pa.array(
                    [[meaning] if meaning else [] for meaning in codes.values()],
                    pa.list_(pa.string()),
                ),
            }
        )
        parquet.write_table(table, self._folder / "metadata/codes.parquet")
        described = {
            "dataset_name": "generated patients, nobody real",
            "meds_version": "0.4.1",
            "created_at": datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC).isoformat(),
        }
        (self._folder / "metadata/dataset.json").write_text(json.dumps(described))


def meds_source(path: str, data_until: datetime.date) -> str:
    """Return `[source]` of site.toml."""
    mapped = ", ".join(
        f'"{site_code(place)}" = "{item.meaning}"'
        for place, item in enumerate(CODES)
        if item.is_local and item.meaning
    )
    return (
        f'[source]\nkind = "meds"\npath = "{path}"\nunit_column = "unit"\n'
        f"data_until = {data_until}\ncode_map = {{ {mapped} }}\n"
    )


def site_code(place: int) -> str:
    """Return the MEDS code of a place in `CODES`."""
    return CODES[place].event_code.replace("/", "//", 1)


def _table(columns: dict[str, pa.Array], rows: int) -> pa.Table:
    return pa.table(
        [
            columns[item.name].cast(item.type)
            if item.name in columns
            else pa.nulls(rows, item.type)
            for item in SCHEMA
        ],
        schema=SCHEMA,
    )


def _persons(records: Records) -> pa.Table:
    patients = records.history.patients
    subject, size = subject_ids(patients), len(patients)
    dead = records.died_s >= 0
    code = np.repeat([0, 1, 2], [size, size, int(dead.sum())])
    code[size : 2 * size] = np.where(patients.is_male, 1, 3)
    time_s = np.concatenate(
        [patients.born_day * DAY_S, np.full(size, np.iinfo(np.int64).min), records.died_s[dead]]
    )
    is_timeless = time_s == np.iinfo(np.int64).min
    columns = {
        "subject_id": pa.array(np.concatenate([subject, subject, subject[dead]])),
        "time": pa.array(time_s.astype("datetime64[s]"), pa.timestamp("s"), mask=is_timeless),
        "code": words(code, ["MEDS_BIRTH", "GENDER//M", "MEDS_DEATH", "GENDER//F"]),
    }
    return _table(columns, len(code))


def _visits(records: Records) -> pa.Table:
    contacts = records.contacts
    subject = subject_ids(records.history.patients)[contacts.patient]
    names = [f"{event}//{name}" for event in ("Visit", "VisitEnd") for name in VISIT_CLASSES]
    place = np.concatenate([contacts.visit_class, contacts.visit_class + len(VISIT_CLASSES)])
    columns = {
        "subject_id": pa.array(np.concatenate([subject, subject])),
        "time": timestamps(np.concatenate([contacts.start_s, contacts.end_s])),
        "code": words(place, names),
    }
    return _table(columns, len(place))


def _events(records: Records) -> pa.Table:
    events = records.events
    columns = {
        "subject_id": pa.array(of_events(records)),
        "time": timestamps(events.time_s),
        "code": words(events.code, [site_code(place) for place in range(len(CODES))]),
        "numeric_value": numbers(events.value),
        "text_value": words(events.answer, _ANSWERS),
        "unit": words(events.unit, UNITS),
    }
    return _table(columns, len(events))
