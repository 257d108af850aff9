"""SQL over one vendor table whose cells are all text: what a cell says, or nothing."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import limits
from site_client.sources.event_table_mapping import (
    Anchor,
    CodeColumn,
    EventEntry,
    TableFile,
    TimeColumn,
)
from site_client.sources.events import YEAR_MIN
from site_client.sources.file_refusal import refuse_file
from site_client.sources.source_files import (
    check_gzip,
    refuse_alike,
    refuse_column,
    sql_files,
    sql_name,
    sql_text,
)

_MICROSECONDS: Final = {
    "seconds": 1_000_000,
    "minutes": 60_000_000,
    "hours": 3_600_000_000,
    "days": 86_400_000_000,
}
_DISTANCE_MAX: Final = 200 * 366 * _MICROSECONDS["days"]  # 200 years: no stay is longer
_IMPOSSIBLE: Final = f"TIMESTAMP '{YEAR_MIN - 1}-01-01'"


@dataclass(frozen=True)
class Relation:
    """One table file as something to select from.

    Args:
        name: for messages.
        sql: a table function; its columns are text or are cast to text.
        columns: the file's column names to SQL names.
        missing: cell texts that mean "not recorded".
    """

    name: str
    sql: str
    columns: Mapping[str, str]
    missing: tuple[str, ...]

    def cell(self, column: str) -> str:
        """Return an expression: the trimmed text of a column, null when nothing is recorded."""
        if column not in self.columns:
            raise refuse_column(self.name, column, len(self.columns))
        text = f"trim(row_.{self.columns[column]}::VARCHAR)"
        missing = ", ".join(sql_text(item) for item in ("", *self.missing))
        return f"(CASE WHEN {text} NOT IN ({missing}) THEN {text} END)"

    def time(self, source: TimeColumn, *, anchor: str) -> str:
        """Return an expression: a TIMESTAMP, null when the cell is none.

        Args:
            source: the declared column.
            anchor: an expression, the TIMESTAMP that distances start from.
        """
        cell = self.cell(source.column)
        if source.since_anchor is None:
            formats = ", ".join(sql_text(item) for item in source.formats)
            return f"try_strptime({cell}, [{formats}])::TIMESTAMP"
        distance = f"({number(cell)} * {_MICROSECONDS[source.since_anchor]})"
        return (
            f"(CASE WHEN abs({distance}) > {_DISTANCE_MAX} THEN {_IMPOSSIBLE} "
            f"ELSE {anchor} + to_microseconds(TRY_CAST(round({distance}) AS BIGINT)) END)"
        )


def number(cell: str) -> str:
    """Return an expression: the finite DOUBLE that a cell writes, else null."""
    # SQL takes 1_0 for ten; no table means that.
    value = f"(CASE WHEN NOT contains({cell}, '_') THEN TRY_CAST({cell} AS DOUBLE) END)"
    return f"(CASE WHEN isfinite({value}) THEN {value} END)"


def chosen(cell: str, values: Mapping[str, str], *, otherwise: str) -> str:
    """Return an expression: what `values` says of a cell's text, else another expression."""
    if not values:
        return otherwise
    cases = " ".join(f"WHEN {sql_text(key)} THEN {sql_text(to)}" for key, to in values.items())
    return f"(CASE {cell} {cases} ELSE {otherwise} END)"


def anchored(anchor: Anchor | None, end: str) -> str:
    """Return an expression over `stays`: the moment that a stay's distances start from."""
    if anchor is None or anchor.date is None:
        # Distances from an impossible anchor are no times either.
        return (
            f"CASE WHEN anchor >= TIMESTAMP '{YEAR_MIN}-01-01' AND anchor < {end} THEN anchor END"
        )
    turn = "row_number() OVER (PARTITION BY subject_id ORDER BY place NULLS LAST, stay) - 1"
    return (
        f"TIMESTAMP '{anchor.date.isoformat()}' + to_days(({turn})::INTEGER * {anchor.stay_days})"
    )


def own_code(column: CodeColumn, cell: str) -> str:
    """Return an expression: the cell as a code of the column's own vocabulary, else null."""
    if column.vocabulary is None:
        return "NULL::VARCHAR"
    form = f"regexp_full_match({cell}, '[^\\s/][^\\r\\n]{{0,120}}') AND NOT contains({cell}, '//')"
    return f"CASE WHEN {form} THEN {sql_text(column.vocabulary + '/')} || {cell} END"


def unit_of(relation: Relation, entry: EventEntry) -> str:
    """Return an expression: the unit of an entry's values."""
    if entry.unit is None:
        return "NULL::VARCHAR"
    if isinstance(entry.unit, str):
        return sql_text(entry.unit)
    cell = relation.cell(entry.unit.column)
    return chosen(cell, entry.unit.values, otherwise=cell)


def open_relation(file: TableFile, *, folder: Path, missing: Iterable[str]) -> Relation:
    """Return a table file as a relation, after a look at its header.

    Raises:
        DataSourceError: no such file, no header, a damaged one.
    """
    path = folder / file.path
    name = path.name
    if not path.is_file():
        raise refuse_file(
            f"{name}: the file cannot be read",
            expected="a file that the agent may read",
            arrived="no such file",
            todo="correct `path` in site.toml",
        )
    if file.format == "parquet":
        columns = _parquet_columns(name, path)
        sql = f"read_parquet({sql_files([path])}, hive_partitioning = false)"
        return Relation(name, sql, {item: sql_name(item) for item in columns}, tuple(missing))
    if path.suffix == ".gz":
        check_gzip(path, name=name)
    header = _header(name, path, file)
    declared = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(header)))
    sql = (
        f"read_csv({sql_files([path])}, auto_detect = false, header = true, "
        f"columns = {{{declared}}}, delim = {sql_text(file.delimiter)}, quote = '\"', "
        f"escape = '\"', strict_mode = true, encoding = {sql_text(file.encoding)}, "
        f"max_line_size = {limits.LINE_BYTES_MAX}, hive_partitioning = false, "
        f"compression = '{'gzip' if path.suffix == '.gz' else 'none'}')"
    )
    return Relation(
        name, sql, {item: f"c{index}" for index, item in enumerate(header)}, tuple(missing)
    )


def _header(name: str, path: Path, file: TableFile) -> list[str]:
    encoding = "utf-8-sig" if file.encoding == "utf-8" else file.encoding
    names: list[str] = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            line = stream.readline(limits.LINE_BYTES_MAX + 1)
        text = io.StringIO(line.decode(encoding), newline="")
        names = next(csv.reader(text, delimiter=file.delimiter, strict=True), [])
        names = [item.strip() for item in names]
    except (OSError, EOFError, zlib.error, ValueError, csv.Error):
        pass
    if len(set(names)) < len(names) or not 1 <= len(names) <= limits.TABLE_COLUMNS_MAX:
        raise refuse_file(
            f"{name}, line 1: the header is refused",
            expected=f"one line of at most {limits.TABLE_COLUMNS_MAX} names, each once, in "
            f"{file.encoding}",
        )
    return names


def _parquet_columns(name: str, path: Path) -> list[str]:
    import pyarrow as arrow
    from pyarrow import parquet

    names: list[str] = []
    with contextlib.suppress(arrow.ArrowException, OSError, ValueError, MemoryError):
        names = [str(item) for item in parquet.read_schema(path).names]
    if not names:
        raise refuse_file(f"{name}: not a Parquet file", expected="a whole Parquet file")
    refuse_alike(name, names)
    return names
