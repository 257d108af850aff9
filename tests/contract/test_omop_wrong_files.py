"""Wrong OMOP files: one error with file, line or column, and no cell."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.omop_reading import MARKER, refused
from tests.lib.six_patients_omop import csv_bytes, six_patients_tables, write_csv, write_parquet

WRITERS = {"csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("name", ["person", "concept"])
def test_without_person_or_concept_nothing_is_read(name: str, tmp_path: Path) -> None:
    tables = six_patients_tables()
    del tables[name]
    assert name in refused(write_csv(tmp_path / "cdm", tables), tmp_path / "scratch").refused


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", tmp_path / "scratch")


@pytest.mark.parametrize("form", WRITERS)
def test_a_table_without_a_column_is_named_with_the_column(form: str, tmp_path: Path) -> None:
    tables = six_patients_tables()
    for row in tables["condition_occurrence"]:
        row[MARKER] = row.pop("condition_start_date")
    error = refused(WRITERS[form](tmp_path / "cdm", tables), tmp_path / "scratch")
    assert "condition_occurrence lacks condition_start_date" in error.refused


def test_two_files_of_one_table_are_refused(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "cdm", six_patients_tables())
    (folder / "PERSON.parquet").write_bytes(b"")
    assert "both the table person" in refused(folder, tmp_path / "scratch").refused


def _wide(data: bytes) -> bytes:
    return data + f"1,2,3,{MARKER}\r\n".encode()


def _latin(data: bytes) -> bytes:
    return data.replace(b"\r\n101,", f"\r\n101,{MARKER}".encode() + b"\xe9", 1)


def _unclosed(data: bytes) -> bytes:
    return data + f'101,"{MARKER}\r\n'.encode()


def _without_header(data: bytes) -> bytes:
    return MARKER.encode() + b"," + data.split(b"\r\n", 1)[1]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_wide, ", line 3"),
        (_latin, ", line 2"),
        (_unclosed, ", line 3"),
        (lambda data: data.rstrip(b"\r\n").rpartition(b",")[0], ", line 2"),
        (_without_header, ""),
        (lambda data: b"", ", line 1"),
        (lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le"), ", line 1"),
        (lambda data: data.split(b"\r\n")[0] + b',"' + MARKER.encode(), ", line 1"),
    ],
)
def test_a_damaged_csv_is_one_error_with_file_and_line_and_no_cell(
    damage: Callable[[bytes], bytes], line: str, tmp_path: Path
) -> None:
    folder = write_csv(tmp_path / "cdm", six_patients_tables())
    path = folder / "death.csv"
    path.write_bytes(damage(path.read_bytes()))
    assert f"death.csv{line}" in str(refused(folder, tmp_path / "scratch"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4],
        lambda data: data[:-8] + b"\0\0\0\0" + data[-4:],
        lambda data: MARKER.encode() + data,
        lambda data: b"",
    ],
)
def test_a_damaged_gzip_is_one_error_with_the_file(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    tables = six_patients_tables()
    folder = write_csv(tmp_path / "cdm", tables)
    rows = [row | {"value_source_value": MARKER} for row in tables["measurement"] * 50]
    (folder / "measurement.csv.gz").write_bytes(damage(gzip.compress(csv_bytes(rows))))
    assert "measurement.csv.gz" in refused(folder, tmp_path / "scratch").refused


@pytest.mark.parametrize("damage", [lambda data: data[:-60], lambda data: MARKER.encode() * 9])
def test_a_damaged_parquet_is_one_error_with_the_file(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    folder = write_parquet(tmp_path / "cdm", six_patients_tables())
    path = folder / "measurement.parquet"
    path.write_bytes(damage(path.read_bytes()))
    assert "measurement.parquet" in refused(folder, tmp_path / "scratch").refused
