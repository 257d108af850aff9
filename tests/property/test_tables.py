"""The table source on any table: what it reads, pandas reads too; what it refuses is ours."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataSourceError
from site_client.sources.table import PatientTable, read_table
from site_client.sources.table_mapping import TableMapping
from tests.lib.plans import make_plan

MARK = "MARKED7731"
PLAN = make_plan()
COLUMNS = ("id", "age", "sbp", "sex", "stroke")
MAPPING = {
    "kind": "table",
    "path": "t.csv",
    "subject_id": "id",
    "features": {
        "age": {"column": "age", "unit": "a"},
        "systolic_bp": {"column": "sbp", "unit": "mm[Hg]", "missing_values": ["?"]},
        "sex": {"column": "sex", "values": {"F": "female", "M": "male"}},
    },
    "label": {"column": "stroke", "positive": ["1"], "negative": ["0"]},
}
ROW = st.tuples(
    st.integers(18, 100).map(str),
    st.one_of(st.just(""), st.just("?"), st.floats(60, 280).map(repr)),
    st.sampled_from(["F", "M", "", "other, with comma", 'a "quote"', "two\nlines"]),
    st.sampled_from(["0", "1", "1.0", ""]),
)
TABLE = st.lists(ROW, min_size=1, max_size=30)


def _csv(rows: list[tuple[str, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return out.getvalue()


def _read(folder: Path, content: bytes, **changes: str) -> PatientTable:
    mapping = TableMapping.model_validate({**MAPPING, **changes})
    (folder / mapping.path).write_bytes(content)
    return read_table(PLAN, mapping, folder=folder)


def _numbered(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(f"p{number}", *row) for number, row in enumerate(rows)]


@settings(max_examples=60, deadline=None)
@given(rows=TABLE)
def test_a_table_is_read_as_pandas_reads_it(rows: list[tuple[str, ...]]) -> None:
    labelled = [row for row in rows if row[3]]
    with tempfile.TemporaryDirectory() as name:
        content = _csv(_numbered(rows)).encode()
        try:
            table = _read(Path(name), content)
        except DataSourceError:
            assert not labelled
            return
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    frame = frame[frame.stroke != ""]
    assert list(table.subject_ids) == list(frame.id)
    assert table.unlabelled == len(rows) - len(labelled)
    np.testing.assert_array_equal(table.label, frame.stroke.astype(float).to_numpy(np.float32))
    np.testing.assert_allclose(table.numeric["age"], frame.age.astype(float))
    expected = pd.to_numeric(frame.sbp, errors="coerce").to_numpy(np.float64)
    np.testing.assert_allclose(table.numeric["systolic_bp"], expected, equal_nan=True)
    levels = frame.sex.map({"F": 0, "M": 1}).fillna(-1).astype(int)
    np.testing.assert_array_equal(table.levels["sex"], levels)
    counts = table.counts["sex"]
    assert counts.missing == int((frame.sex == "").sum())
    assert counts.recorded + counts.missing + counts.unmapped == len(frame)


@settings(max_examples=30, deadline=None)
@given(rows=TABLE)
def test_csv_gzip_semicolons_and_parquet_give_the_same_table(rows: list[tuple[str, ...]]) -> None:
    rows = [*rows, ("50", "120.0", "F", "1")]
    numbered = _numbered(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = _read(folder, _csv(numbered).encode())
        columns = {
            key: [row[index] or None for row in numbered] for index, key in enumerate(COLUMNS)
        }
        parquet.write_table(arrow.table(columns), folder / "t.parquet")
        content = (folder / "t.parquet").read_bytes()
        others = [
            _read(folder, content, path="t.parquet", format="parquet"),
            _read(folder, b"\xef\xbb\xbf" + _csv(numbered).replace("\n", "\r\n").encode()),
        ]
    for other in others:
        assert other.subject_ids == first.subject_ids
        for key, values in first.numeric.items():
            np.testing.assert_array_equal(other.numeric[key], values)
        np.testing.assert_array_equal(other.label, first.label)


@settings(max_examples=150, deadline=None)
@given(rows=TABLE, place=st.integers(0, 10_000), junk=st.binary(max_size=6))
def test_junk_anywhere_is_read_or_refused_and_no_value_is_ever_told(
    rows: list[tuple[str, ...]], place: int, junk: bytes
) -> None:
    content = _csv(_numbered(rows)).encode()
    cut = place % (len(content) + 1)
    content = content[:cut] + junk + MARK.encode() + junk + content[cut:]
    with tempfile.TemporaryDirectory() as name:
        try:
            _read(Path(name), content)
        except DataSourceError as error:
            told = f"{error} {error.as_record()} {error.args}"
            assert MARK not in told
            assert error.__cause__ is None
            assert "t.csv" in told


@settings(max_examples=100, deadline=None)
@given(rows=TABLE, place=st.integers(10, 10_000), bit=st.integers(0, 7))
def test_a_gzip_file_with_a_flipped_bit_is_read_or_refused(
    rows: list[tuple[str, ...]], place: int, bit: int
) -> None:
    content = bytearray(gzip.compress(_csv(_numbered(rows)).encode()))
    content[place % len(content)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as name:
        try:
            _read(Path(name), bytes(content), path="t.csv.gz")
        except DataSourceError as error:
            assert "t.csv.gz" in str(error)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400))
def test_arbitrary_bytes_are_never_more_than_our_one_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        for changes in ({}, {"format": "parquet", "path": "t.parquet"}, {"path": "t.csv.gz"}):
            try:
                _read(Path(name), content, **changes)
            except DataSourceError as error:
                assert error.todo
