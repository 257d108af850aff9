"""Months after training for the demo: new patients like the hospital's own, and what may change.

A month's patients are drawn, with replacement, from the rows with which a hospital trained, so that
without a change every month is like the reference. They imitate growth of a table; nobody is real
who was not before, and nobody new.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import StoreError

INDEX_DATE: Final = "index_date"
PATIENT: Final = "patient_id"
Row = dict[str, str]


@dataclass(frozen=True)
class Change:
    """What is different at one hospital in one month.

    Args:
        words: for the reader of the demo.
        weight: a row's weight in the draw; all the same when None.
        alter: what is recorded in place of a row; as it is when None.
    """

    words: str
    weight: Callable[[Row], float] | None = None
    alter: Callable[[Row], Row] | None = None


def other_unit(column: str, *, factor: float, words: str) -> Change:
    """Return a change of a laboratory's unit: a number is recorded as `factor` times itself."""

    def alter(row: Row) -> Row:
        try:
            value = float(row[column])
        except ValueError:
            return row
        return row | {column: f"{value * factor:.2f}"}

    return Change(words, alter=alter)


def older_patients(column: str, *, per_decade: float, words: str) -> Change:
    """Return a shift of case mix: a patient ten years older comes `per_decade` times as often."""

    def weight(row: Row) -> float:
        return float(per_decade ** (float(row[column]) / 10))

    return Change(words, weight=weight)


def months_before(day: datetime.date, count: int, *, months_ago: int) -> tuple[datetime.date, ...]:
    """Return the first days of `count` months in a row, the last of which began months ago."""
    last = day.year * 12 + day.month - 1 - months_ago
    counted = range(last - count + 1, last + 1)
    return tuple(datetime.date(month // 12, month % 12 + 1, 1) for month in counted)


def write_dated(path: Path, columns: Sequence[str], rows: Sequence[Row], *, year: int) -> None:
    """Write a hospital's table: patients and index dates spread over a year before the columns.

    Raises:
        StoreError: when it cannot be written.
    """
    days = (datetime.date(year + 1, 1, 1) - datetime.date(year, 1, 1)).days
    first = datetime.date(year, 1, 1)
    dated = [
        {
            PATIENT: f"P{number:05d}",
            INDEX_DATE: (first + datetime.timedelta(number * days // len(rows))).isoformat(),
            **row,
        }
        for number, row in enumerate(rows)
    ]
    _write(path, (PATIENT, INDEX_DATE, *columns), dated, mode="w")


def add_month(
    path: Path, first: datetime.date, *, patients: int, seed: int, change: Change | None = None
) -> None:
    """Append one month's new patients to a hospital's table.

    Args:
        path: of a table that `write_dated` made.
        first: the month's first day.
        patients: how many come.
        seed: the month is a function of the table, the month and this number.
        change: what is different.

    Raises:
        StoreError: when it cannot be read or written.
    """
    columns, known = _read(path)
    rng = np.random.default_rng([seed, first.year, first.month, *path.stem.encode()])
    weights = _weights(known, change)
    days = ((first.replace(day=28) + datetime.timedelta(4)).replace(day=1) - first).days
    rows = []
    for number, place in enumerate(rng.choice(len(known), patients, p=weights).tolist()):
        row = known[place]
        if change is not None and change.alter is not None:
            row = change.alter(row)
        date = first + datetime.timedelta(int(rng.integers(days)))
        rows.append(row | {PATIENT: f"M{first:%Y%m}-{number:05d}", INDEX_DATE: date.isoformat()})
    _write(path, columns, rows, mode="a")


def _weights(rows: Sequence[Row], change: Change | None) -> npt.NDArray[np.float64] | None:
    if change is None or change.weight is None:
        return None
    weights = np.array([change.weight(row) for row in rows])
    return np.asarray(weights / weights.sum())


def _read(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Return the columns and the rows with which the hospital trained."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = [row for row in reader if not row[PATIENT].startswith("M")]
            return tuple(reader.fieldnames or ()), rows
    except (OSError, KeyError) as error:
        raise _refuse(path, "read", error) from None


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row], *, mode: str) -> None:
    try:
        with path.open(mode, newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=columns)
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise _refuse(path, "written", error) from None


def _refuse(path: Path, what: str, error: Exception) -> StoreError:
    return StoreError(
        f"a table of the demo cannot be {what}",
        expected=f"a file {path} that the demo made",
        arrived=getattr(error, "strerror", None) or type(error).__name__,
        todo="free disk space or choose another folder",
    )
