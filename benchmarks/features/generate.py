"""MEDS shards of invented patients, as published: sorted by patient and time, with metadata.

A patient has about 100 events: visits, each with tests, diagnoses and drugs by a long-tailed law
of their codes; birth, sex, sometimes death. Some are junk: no value, a value far too large, a unit
that does not convert, a time in the future, a code without a vocabulary.
"""

from __future__ import annotations

import datetime
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from benchmarks.features.study import ECOG, LABS, SMOKING, unit_of

EVENTS_PER_PATIENT: Final = 100
PATIENTS_PER_SHARD: Final = 10_000
DATA_UNTIL: Final = datetime.date(2025, 1, 1)
_DIAGNOSES, _DRUGS = 2000, 800
_SCHEMA: Final = pa.schema(
    {
        "subject_id": pa.int64(),
        "time": pa.timestamp("us"),
        "code": pa.string(),
        "numeric_value": pa.float32(),
        "text_value": pa.large_string(),
        "unit": pa.string(),
    }
)
_MINUTE_US: Final = 60_000_000
_DAY_US: Final = 86_400_000_000
_NO_TIME: Final = np.iinfo(np.int64).min

CODES: Final = (
    *(f"LAB//{lab}" for lab in range(LABS)),
    *(f"DX//{item}" for item in range(_DIAGNOSES)),
    *(f"DRUG//{item}" for item in range(_DRUGS)),
    *("Visit//OP", "Visit//IP", "VisitEnd//OP", "VisitEnd//IP"),
    *("QUESTION//smoking", "QUESTION//ecog"),
    *("MEDS_BIRTH", "MEDS_DEATH", "GENDER//F", "GENDER//M", "a local code"),
)
_PLACE: Final = {code: place for place, code in enumerate(CODES)}
_TEXTS: Final = (*SMOKING, *ECOG)
_UNITS: Final = tuple(dict.fromkeys([*(unit_of(lab) for lab in range(LABS)), "g/dL", "furlong"]))


def write_meds(folder: Path, *, patients: int, processes: int = 2, first: int = 0) -> int:
    """Write a MEDS data set and return its number of events.

    Args:
        folder: to be made.
        patients: rounded up to whole shards' parts.
        processes: at work.
        first: number of the first shard; the same number gives the same shard.
    """
    (folder / "data/train").mkdir(parents=True)
    (folder / "metadata").mkdir()
    (folder / "metadata/dataset.json").write_text(
        json.dumps({"dataset_name": "invented", "meds_version": "0.4.1"})
    )
    described = {
        "code": pa.array(CODES, pa.string()),
        "description": pa.array(CODES, pa.string()),
        "parent_codes": pa.array([[] for _ in CODES], pa.list_(pa.string())),
    }
    parquet.write_table(pa.table(described), folder / "metadata/codes.parquet")
    shards = range(first, first + -(-patients // PATIENTS_PER_SHARD))
    sizes = [
        min(PATIENTS_PER_SHARD, patients - place * PATIENTS_PER_SHARD)
        for place in range(len(shards))
    ]
    paths = [folder / f"data/train/{shard}.parquet" for shard in shards]
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(_write_shard, paths, shards, sizes))


def _write_shard(path: Path, shard: int, patients: int) -> int:
    columns = _events(np.random.default_rng([2026, shard]), patients)
    order = np.lexsort((columns["time"], columns["subject"]))
    subject, time, code, value, text, unit = (columns[name][order] for name in columns)
    table = pa.table(
        [
            pa.array((subject + shard * PATIENTS_PER_SHARD) * 7 + 10_000_019),
            pa.array(time, mask=time == _NO_TIME).cast(pa.timestamp("us")),
            _words(code, CODES).cast(pa.string()),
            pa.array(value, mask=np.isnan(value)),
            _words(text, _TEXTS).cast(pa.large_string()),
            _words(unit, _UNITS).cast(pa.string()),
        ],
        schema=_SCHEMA,
    )
    parquet.write_table(table, path, compression="zstd", row_group_size=1 << 18)
    return len(table)


def _words(places: npt.NDArray[np.int32], words: tuple[str, ...]) -> Any:
    indices = pa.array(places, mask=places < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def _events(chance: np.random.Generator, patients: int) -> dict[str, npt.NDArray[Any]]:
    visits = 1 + chance.negative_binomial(1.5, 1.5 / (1.5 + 6.9), patients)
    start = _us(2012) + chance.integers(0, 3 * 365, patients) * _DAY_US
    span = chance.integers(200, 9 * 365, patients) * _DAY_US
    who = np.repeat(np.arange(patients), visits)
    arrival = (
        start[who]
        + (chance.random(len(who)) * span[who] / _MINUTE_US).astype(np.int64) * _MINUTE_US
    )
    is_inpatient = (chance.random(len(who)) < 0.25).astype(np.int64)
    leaving = arrival + np.where(
        is_inpatient, chance.integers(1, 12, len(who)) * _DAY_US, 3600_000_000
    )
    inside = chance.poisson(10.2, len(who))
    visit = np.repeat(np.arange(len(who)), inside)
    time = arrival[visit] + (chance.random(len(visit)) * 2880).astype(np.int64) * _MINUTE_US
    tests = _records(chance, who[visit], time)
    asked = np.flatnonzero(chance.random(len(who)) < 0.1)
    smoking = np.full(len(asked), _PLACE["QUESTION//smoking"])
    ecog = np.full(len(asked), _PLACE["QUESTION//ecog"])
    year = chance.integers(1925, 2000, patients) - 1970
    born = (year * 365.25 + chance.integers(0, 365, patients)).astype(np.int64) * _DAY_US
    everybody = np.arange(patients)
    dead = np.flatnonzero(chance.random(patients) < 0.12)
    died = (start + span)[dead] + (chance.exponential(250, len(dead)) + 1).astype(
        np.int64
    ) * _DAY_US
    in_time = died < _us(2025)
    dead, died = dead[in_time], died[in_time]
    sex = _PLACE["GENDER//F"] + chance.integers(0, 2, patients)
    parts = [
        tests,
        _plain(who, arrival, _PLACE["Visit//OP"] + is_inpatient),
        _plain(who, leaving, _PLACE["VisitEnd//OP"] + is_inpatient),
        _plain(who[asked], arrival[asked], smoking, chance.integers(0, 3, len(asked))),
        _plain(who[asked], arrival[asked], ecog, chance.integers(3, 7, len(asked))),
        _plain(everybody, born, np.full(patients, _PLACE["MEDS_BIRTH"])),
        _plain(everybody, np.full(patients, _NO_TIME), sex),
        _plain(dead, died, np.full(len(dead), _PLACE["MEDS_DEATH"])),
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in tests}


def _records(
    chance: np.random.Generator, who: npt.NDArray[Any], time: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return tests, diagnoses and drugs, and the junk among them."""
    number = len(who)
    kind = chance.random(number)
    is_test = kind < 0.62
    code = np.where(
        is_test,
        _ranks(chance, LABS, number),
        np.where(
            kind < 0.85,
            LABS + _ranks(chance, _DIAGNOSES, number),
            LABS + _DIAGNOSES + _ranks(chance, _DRUGS, number),
        ),
    )
    value = np.where(is_test, chance.lognormal(3.0, 0.6, number), np.nan)
    digits = np.where(code % 3 == 0, 100.0, 10.0)
    value = np.round(value * digits) / digits
    native = np.array([_UNITS.index(unit_of(lab)) for lab in range(LABS)])
    unit = np.where(is_test, native[np.where(is_test, code, 0)], -1)
    in_dl = is_test & (unit == _UNITS.index("g/L")) & (chance.random(number) < 0.2)
    value = np.where(in_dl, np.round(value) / 10, value)
    unit = np.where(in_dl, _UNITS.index("g/dL"), unit)
    lot = chance.random(number)
    value = np.where(lot < 0.002, value * 1000 + 6000, value)
    value = np.where((lot > 0.002) & (lot < 0.005), np.nan, value)
    unit = np.where(is_test & (lot > 0.99), _UNITS.index("furlong"), unit)
    code = np.where((lot > 0.4) & (lot < 0.41), _PLACE["a local code"], code)
    time = np.where((lot > 0.5) & (lot < 0.5001), _us(2150), time)
    return _columns(who, time, code, value, np.full(number, -1), unit)


def _ranks(chance: np.random.Generator, kinds: int, number: int) -> npt.NDArray[np.int64]:
    weights = 1.0 / (np.arange(kinds) + 8.0)
    edges = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(edges, chance.random(number)), kinds - 1)


def _plain(
    who: npt.NDArray[Any], time: npt.NDArray[Any], code: npt.NDArray[Any], text: Any = None
) -> dict[str, npt.NDArray[Any]]:
    none = np.full(len(who), -1)
    return _columns(
        who, time, code, np.full(len(who), np.nan), none if text is None else text, none
    )


def _columns(*arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    kinds = (np.int64, np.int64, np.int32, np.float32, np.int32, np.int32)
    names = ("subject", "time", "code", "value", "text", "unit")
    return {
        name: array.astype(kind) for name, array, kind in zip(names, arrays, kinds, strict=True)
    }


def _us(year: int) -> int:
    return (datetime.date(year, 1, 1) - datetime.date(1970, 1, 1)).days * _DAY_US
