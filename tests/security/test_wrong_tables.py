"""A wrong table gets one clear error with file, line and column, and no value of any cell."""

from __future__ import annotations

import gzip
import tomllib
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from common.errors import DataSourceError
from common.study.plan_file import read_plan
from simulations.heart_sites import heart_sites
from site_client.sources.table import PatientTable, read_table
from site_client.sources.table_mapping import TableMapping
from tests.lib.sites_in_process import PLAN

MARK = "MARKED7731"


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    heart_sites(tmp_path / "data", uci=None)
    text = (tmp_path / "data" / "northfield.csv").read_text()
    return text.splitlines()


def _read(tmp_path: Path, content: bytes, *, name: str = "t.csv", extra: str = "") -> PatientTable:
    (tmp_path / name).write_bytes(content)
    source = heart_sites(tmp_path / "data", uci=None)[0].source
    start = source.index('path = "')
    end = source.index("\n", start)
    text = source[:start] + f'path = "{name}"\n{extra}' + source[end + 1 :]
    mapping = TableMapping.model_validate(tomllib.loads(text)["source"])
    return read_table(read_plan(PLAN), mapping, folder=tmp_path)


def _join(lines: list[str]) -> bytes:
    return "\n".join(lines).encode() + b"\n"


def _set(lines: list[str], line: int, column: str, value: str) -> list[str]:
    index = lines[0].split(",").index(column)
    cells = lines[line - 1].split(",")
    cells[index] = value
    return [*lines[: line - 1], ",".join(cells), *lines[line:]]


def test_a_right_table_is_read_whole(tmp_path: Path, lines: list[str]) -> None:
    table = _read(tmp_path, _join(lines))
    assert len(table.label) == len(lines) - 1
    assert len(_read(tmp_path, gzip.compress(_join(lines)), name="t.csv.gz").label) == 310


def test_parquet_and_csv_give_the_same_table(tmp_path: Path, lines: list[str]) -> None:
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    found = _read(tmp_path, content, name="t.parquet", extra='format = "parquet"\n')
    expected = _read(tmp_path, _join(lines))
    assert found.subject_ids == expected.subject_ids
    assert (found.label == expected.label).all()
    for name, values in expected.levels.items():
        assert (found.levels[name] == values).all()
    for name, numbers in expected.numeric.items():
        assert ((found.numeric[name] == numbers) | (numbers != numbers)).all()


WRONG = {
    "a missing column": (lambda x: [x[0].replace("age,", "alter,"), *x[1:]], "line 1", "'age'"),
    "text in a number": (lambda x: _set(x, 9, "resting_bp", MARK), "line 9", "'resting_bp'"),
    "a duplicate patient": (
        lambda x: _set(x, 7, "patient_id", "P00001"),
        "line 7",
        "'patient_id'",
    ),
    "a label that is neither": (
        lambda x: _set(x, 5, "heart_disease", MARK),
        "line 5",
        "'heart_disease'",
    ),
    "a value where none may be missing": (lambda x: _set(x, 4, "age", ""), "line 4", "'age'"),
    "one age that cannot be": (lambda x: _set(x, 4, "age", "999"), "line 4", "from 18 to 110"),
    "ages in months": (
        lambda x: [x[0]] + [_set([x[0], row], 2, "age", "700")[1] for row in x[1:]],
        "line 2",
        "too many values",
    ),
    "a level where none may be missing": (
        lambda x: _set(x, 4, "sex", MARK),
        "line 4",
        "the mapping does not name",
    ),
    "another delimiter": (
        lambda x: [line.replace(",", ";") for line in x],
        "line 1",
        "`delimiter`",
    ),
    "a ragged row": (lambda x: [*x[:5], x[5] + "," + MARK, *x[6:]], "line 6", "fields"),
    "an empty file": (lambda x: [""], "line 1", "empty"),
    "a header and nothing else": (lambda x: x[:1], "line 1", "no labelled patient"),
    "a repeated column": (lambda x: [x[0].replace("sex", "age"), *x[1:]], "line 1", "header"),
    "a unit that cannot be the plan's": (
        lambda x: [x[0]] + [_set([x[0], row], 2, "cholesterol", "5.2")[1] for row in x[1:]],
        "line 2",
        "'cholesterol'",
    ),
    "broken quoting": (lambda x: [*x[:3], '"' + MARK, *x[4:]], "line", "quoting"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_wrong_table_names_file_line_and_column_and_no_value(
    tmp_path: Path, lines: list[str], wrong: str
) -> None:
    change, place, what = WRONG[wrong]
    with pytest.raises(DataSourceError) as refused:
        _read(tmp_path, _join(change(lines)))
    told = str(refused.value)
    assert "t.csv" in told
    assert place in told
    assert what in told
    assert MARK not in told
    assert "P00001" not in told
    assert refused.value.__cause__ is None


def test_a_line_without_an_end_is_refused_without_reading_it_whole(
    tmp_path: Path, lines: list[str]
) -> None:
    # A sparse file of 10 GB: reading it whole would need 10 GB of memory.
    path = tmp_path / "t.csv"
    path.write_bytes(_join(lines[:3]))
    with path.open("ab") as stream:
        stream.truncate(10 * 2**30)
    source = heart_sites(tmp_path / "data", uci=None)[0].source
    start = source.index('path = "')
    text = source[:start] + 'path = "t.csv"' + source[source.index("\n", start) :]
    mapping = TableMapping.model_validate(tomllib.loads(text)["source"])
    with pytest.raises(DataSourceError, match=r"t\.csv, line 4: a line is too long"):
        read_table(read_plan(PLAN), mapping, folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "name", "extra"),
    [
        (b"\xff\xfe" + MARK.encode(), "t.csv", ""),
        (gzip.compress(b"a,b\n" * 5000)[:60], "t.csv.gz", ""),
        (b"PAR1" + MARK.encode(), "t.parquet", 'format = "parquet"\n'),
    ],
    ids=["another encoding", "a cut gzip file", "no Parquet"],
)
def test_a_damaged_file_is_one_clear_error(
    tmp_path: Path, content: bytes, name: str, extra: str
) -> None:
    with pytest.raises(DataSourceError) as refused:
        _read(tmp_path, content, name=name, extra=extra)
    assert name in str(refused.value)
    assert MARK not in str(refused.value)
