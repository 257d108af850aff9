"""Columns of generated records as Arrow arrays: identifiers, times, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from simulations.populations.people import Patients, Whole
from simulations.populations.records import Records

FIRST_SUBJECT: Final = 9_900_000_000
"""Added to a patient's number: no identifier of a real register begins so by chance alone."""


def subject_ids(patients: Patients) -> Whole:
    """Return the patients' identifiers, the same in every form."""
    return FIRST_SUBJECT + patients.first + np.arange(len(patients))


def of_events(records: Records) -> Whole:
    """Return each event's subject."""
    return subject_ids(records.history.patients)[records.events.patient]


def timestamps(time_s: Whole) -> pa.Array:
    """Return times, null where -1, as Arrow's seconds."""
    return pa.array(time_s.astype("datetime64[s]"), pa.timestamp("s"), mask=time_s == -1)


def births(patients: Patients) -> pa.Array:
    """Return dates of birth."""
    return pa.array(patients.born_day.astype("datetime64[D]"), pa.date32())


def words(places: npt.NDArray[Any], names: Sequence[str | None]) -> pa.Array:
    """Return the name at each place, null where the place is -1."""
    index = pa.array(places, pa.int32(), mask=np.asarray(places) < 0)
    return pa.array(list(names), pa.string()).take(index)


def numbers(values: npt.NDArray[np.float64]) -> pa.Array:
    """Return numbers, null where NaN."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def instants(time_s: Whole) -> pa.Array:
    """Return times as text, 2023-01-31 08:05:00; null where -1."""
    return compute.cast(timestamps(time_s), pa.string())
