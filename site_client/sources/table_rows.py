"""Rows of a CSV or Parquet file as text, one at a time, bounded: no cell ever enters a message."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from common import limits
from common.errors import DataSourceError
from site_client.sources.table_mapping import TableMapping


@dataclass(frozen=True)
class Row:
    """One row: the line (CSV, 1-based) or row number (Parquet, 1-based), and its cells."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Rows:
    """A table's column names and its rows."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


def open_rows(path: Path, mapping: TableMapping) -> Rows:
    """Return the columns and rows of a table file; raises `DataSourceError`."""
    if not path.is_file():
        raise DataSourceError(
            "the data file cannot be read",
            expected=f"a file {path}",
            arrived="no such file",
            todo="correct `path` under [source] in site.toml",
        )
    if mapping.format == "parquet":
        return _parquet_rows(path)
    return _csv_rows(path, mapping)


def refuse(path: Path, line: int, what: str, *, expected: str, todo: str) -> DataSourceError:
    """Return the error that names a place in a file, never a value."""
    return DataSourceError(
        f"{path.name}, line {line}: {what}",
        expected=expected,
        arrived="something else (values are never shown)",
        todo=todo,
    )


def _csv_rows(path: Path, mapping: TableMapping) -> Rows:
    lines = _lines(path, mapping)
    reader = csv.reader(lines, delimiter=mapping.delimiter, strict=True)
    rows = _parsed(reader, path)
    if mapping.columns:
        return Rows(mapping.columns, _same_width(rows, path, len(mapping.columns)))
    header = next(rows, None)
    if header is None:
        raise refuse(
            path, 1, "the file is empty", expected="a header line", todo="export the table again"
        )
    names = tuple(name.strip() for name in header.cells)
    if len(set(names)) < len(names) or len(names) > limits.TABLE_COLUMNS_MAX:
        raise refuse(
            path,
            header.line,
            "the header is refused",
            expected=f"at most {limits.TABLE_COLUMNS_MAX} columns, each name once",
            todo="rename the repeated columns",
        )
    return Rows(names, _same_width(rows, path, len(names)))


def _lines(path: Path, mapping: TableMapping) -> Iterator[str]:
    number = 0
    with _open_binary(path) as stream:
        while True:
            number += 1
            try:
                raw = stream.readline(limits.LINE_BYTES_MAX + 1)
            except (OSError, EOFError, zlib.error):
                raise refuse(
                    path,
                    number,
                    "the file cannot be read",
                    expected="a whole file",
                    todo="copy or export the file again",
                ) from None
            if not raw:
                return
            if len(raw) > limits.LINE_BYTES_MAX:
                raise refuse(
                    path,
                    number,
                    "a line is too long",
                    expected=f"at most {limits.LINE_BYTES_MAX} bytes a line",
                    todo="check the line ends and the delimiter; export the table again",
                )
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield raw.decode(mapping.encoding)
            except UnicodeDecodeError:
                raise refuse(
                    path,
                    number,
                    "the text has another encoding",
                    expected=mapping.encoding,
                    todo="set `encoding` under [source], or export the table as UTF-8",
                ) from None


def _open_binary(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _parsed(reader: Iterator[list[str]], path: Path) -> Iterator[Row]:
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise refuse(
                path,
                line,
                "the quoting is broken or a field is too long",
                expected="well-formed CSV",
                todo="export the table again with a standard tool",
            ) from None
        line_number = int(getattr(reader, "line_num", line))
        if cells:
            yield Row(line_number, cells)
        line = line_number + 1


def _same_width(rows: Iterator[Row], path: Path, width: int) -> Iterator[Row]:
    for row in rows:
        if len(row.cells) != width:
            raise refuse(
                path,
                row.line,
                f"the row has {len(row.cells)} fields",
                expected=f"{width} fields, as many as columns",
                todo="check the delimiter and the quoting of that line",
            )
        yield row


def _parquet_rows(path: Path) -> Rows:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = tuple(str(name) for name in file.schema_arrow.names)
    except (arrow.ArrowException, OSError):
        raise refuse(
            path, 1, "not a Parquet file", expected="a Parquet file", todo="export it again"
        ) from None

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=10_000):
                columns = [batch.column(index).to_pylist() for index in range(len(names))]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield Row(number, ["" if cell is None else str(cell) for cell in cells])
        except (arrow.ArrowException, OSError):
            raise refuse(
                path,
                number + 1,
                "the file is damaged",
                expected="a whole Parquet file",
                todo="export it again",
            ) from None

    return Rows(names, rows())
