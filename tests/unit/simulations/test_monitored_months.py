"""The demo's months after training: like the hospital's own patients, but for the stated change."""

from __future__ import annotations

import csv
import datetime
from collections import Counter
from pathlib import Path

import pytest

from common.errors import StoreError
from simulations.monitored_months import (
    add_month,
    months_before,
    older_patients,
    other_unit,
    write_dated,
)

COLUMNS = ("age", "cholesterol")
ROWS = [{"age": str(40 + number % 40), "cholesterol": str(200 + number)} for number in range(200)]
JANUARY = datetime.date(2025, 1, 1)


def table(folder: Path) -> Path:
    """Return a hospital's table as it is after training."""
    path = folder / "here.csv"
    write_dated(path, COLUMNS, ROWS, year=2020)
    return path


def rows_of(path: Path, month: str) -> list[dict[str, str]]:
    """Return a month's rows."""
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["index_date"].startswith(month)]


def test_months_are_whole_and_in_a_row_across_a_year_s_end() -> None:
    months = months_before(datetime.date(2026, 3, 31), 3, months_ago=3)
    assert [str(month) for month in months] == ["2025-10-01", "2025-11-01", "2025-12-01"]


def test_patients_who_trained_have_dates_of_the_year_and_months_have_their_own(
    tmp_path: Path,
) -> None:
    path = table(tmp_path)
    assert len(rows_of(path, "2020-")) == len(ROWS)
    add_month(path, JANUARY, patients=300, seed=1)
    new = rows_of(path, "2025-01-")
    assert len(new) == len({row["patient_id"] for row in new}) == 300
    assert {row["index_date"][8:] for row in new} >= {"01", "31"}
    assert len(rows_of(path, "2020-")) == len(ROWS)
    same = table(tmp_path)
    add_month(same, JANUARY, patients=300, seed=1)
    assert rows_of(same, "2025-01-") == new


def test_a_month_without_a_change_draws_every_row_alike(tmp_path: Path) -> None:
    path = table(tmp_path)
    add_month(path, JANUARY, patients=20_000, seed=1)
    drawn = Counter(row["cholesterol"] for row in rows_of(path, "2025-01"))
    assert set(drawn) == {row["cholesterol"] for row in ROWS}
    assert max(abs(count - 100) for count in drawn.values()) < 50  # five deviations


def test_another_unit_divides_every_number_and_leaves_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "here.csv"
    write_dated(path, COLUMNS, [ROWS[0], ROWS[1] | {"cholesterol": "?"}], year=2020)
    change = other_unit("cholesterol", factor=1 / 40, words="mmol/L for mg/dL")
    add_month(path, JANUARY, patients=50, seed=1, change=change)
    assert {row["cholesterol"] for row in rows_of(path, "2025-01")} == {"5.00", "?"}


def test_older_patients_come_more_often(tmp_path: Path) -> None:
    path = table(tmp_path)
    change = older_patients("age", per_decade=3.0, words="older")
    add_month(path, JANUARY, patients=5000, seed=1, change=change)
    ages = [int(row["age"]) for row in rows_of(path, "2025-01")]
    assert sum(ages) / len(ages) > 68


def test_a_table_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        add_month(tmp_path / "none.csv", JANUARY, patients=1, seed=1)
