"""The CDM's tables in a folder: which file is which table, its columns, and how DuckDB reads it."""

# Names and paths are quoted by us; SQL has no parameters where they stand.
# ruff: noqa: S608

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from common import limits
from common.errors import DataSourceError
from site_client.sources.source_files import check_gzip, run_sql, sql_file, sql_text

if TYPE_CHECKING:
    import duckdb

_FILE_NAME: Final = re.compile(
    r"(?:[0-9][0-9a-z]*_)?(?P<table>[a-z][a-z_]*)\.(?P<form>csv|csv\.gz|parquet)", re.IGNORECASE
)
"""An export may number its vocabulary tables, as `2b_concept.csv`."""


@dataclass(frozen=True)
class Column:
    """A column as the source names it, and its DuckDB type."""

    name: str
    type: str


@dataclass(frozen=True)
class SourceTable:
    """One table of the CDM as it stands at the site.

    Args:
        name: the CDM's, lower case.
        place: for messages: file name, or the table's name in a database.
        relation: SQL that stands after FROM.
        columns: by lower-case name.
    """

    name: str
    place: str
    relation: str
    columns: Mapping[str, Column]

    def require(self, *names: str) -> None:
        """Refuse a table without one of these columns.

        Raises:
            DataSourceError: names table and columns; a header may be a row of data, so what stands
                there instead is not said.
        """
        absent = [name for name in names if name not in self.columns]
        if absent:
            raise DataSourceError(
                f"{self.place}: the table {self.name} lacks {', '.join(absent)}",
                expected=f"the columns {', '.join(names)}",
                arrived=f"{len(self.columns)} column(s) without these names",
                todo="export the table again with its header line, separated by comma or tab",
            )


def find_tables(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Return which of a folder's files holds which of these tables.

    Raises:
        DataSourceError: the folder cannot be listed, or two files hold the same table.
    """
    found: dict[str, Path] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        raise DataSourceError(
            "the folder of the OMOP tables cannot be read",
            expected=f"a folder {folder}",
            arrived="none, or one that this account may not list",
            todo="correct `path` under [source] in site.toml",
        ) from None
    for path in paths:
        match = _FILE_NAME.fullmatch(path.name)
        table = match.group("table").lower() if match else ""
        if table not in names:
            continue
        if table in found:
            raise DataSourceError(
                f"{path.name} and {found[table].name} are both the table {table}",
                expected="one file a table",
                arrived="two",
                todo="leave one of them in the folder",
            )
        found[table] = path
    return found


def open_file(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> SourceTable:
    """Return a file as a table: the columns come from its header or its schema.

    Raises:
        DataSourceError: the file is not what its name says.
    """
    if path.suffix.lower() == ".parquet":
        relation = f"read_parquet({sql_file(path)}, binary_as_string=true)"
        return described(connection, name, path.name, relation)
    if path.suffix.lower() == ".gz":
        check_gzip(path, name=path.name)
    return _csv_table(name, path)


def described(
    connection: duckdb.DuckDBPyConnection, name: str, place: str, relation: str
) -> SourceTable:
    """Return a table with the columns and types that DuckDB knows of it."""
    rows = run_sql(connection, f"DESCRIBE SELECT * FROM {relation}", place=place)
    columns = {row[0].lower(): Column(row[0], row[1]) for row in rows}
    return SourceTable(name, place, relation, columns)


def _csv_table(name: str, path: Path) -> SourceTable:
    header = _header(path)
    delimiter = "\t" if "\t" in header else ","
    # Athena's tab-separated files do not quote: a quotation mark in a name is a letter there.
    quoted = delimiter == "," or '"' in header
    try:
        cells = next(
            csv.reader(
                [header],
                delimiter=delimiter,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                strict=True,
            ),
            [],
        )
    except csv.Error:
        cells = []
    names = [cell.strip() for cell in cells]
    lower = {cell.lower() for cell in names}
    if not names or len(lower) < len(names) or "" in lower or len(names) > limits.TABLE_COLUMNS_MAX:
        raise _refuse_header(path, f"at most {limits.TABLE_COLUMNS_MAX} names, each once")
    columns = ", ".join(f"{sql_text(cell)}: 'VARCHAR'" for cell in names)
    quote = sql_text('"' if quoted else "")
    relation = (
        f"read_csv({sql_file(path)}, auto_detect=false, header=true, "
        f"delim={sql_text(delimiter)}, quote={quote}, escape={quote}, "
        f"nullstr=['', 'NULL', '\\N'], columns={{{columns}}}, strict_mode=true, "
        f"encoding='utf-8', max_line_size={limits.LINE_BYTES_MAX}, "
        f"compression={sql_text('gzip' if path.suffix.lower() == '.gz' else 'none')})"
    )
    by_name = {cell.lower(): Column(cell, "VARCHAR") for cell in names}
    return SourceTable(name, path.name, relation, by_name)


def _header(path: Path) -> str:
    try:
        with _open_binary(path) as stream:
            raw = stream.readline(limits.LINE_BYTES_MAX + 1)
        text = raw.removeprefix(b"\xef\xbb\xbf").decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        text = ""
    if not text.strip() or len(text) > limits.LINE_BYTES_MAX:
        raise _refuse_header(path, "a header line in UTF-8")
    return text.rstrip("\r\n")


def _refuse_header(path: Path, expected: str) -> DataSourceError:
    return DataSourceError(
        f"{path.name}, line 1: the header is refused",
        expected=expected,
        arrived="something else (values are never shown)",
        todo="export the table again as CSV with a header line, in UTF-8",
    )


def _open_binary(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")
