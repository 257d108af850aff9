"""Files of a source inside DuckDB: names and texts quoted, refusals without a value.

DuckDB's messages quote the offending cell. `run_sql` and `stream_sql` are the only ways that
anything reads Parquet and CSV files, and `hide_database_text` is for a whole build over what a
reader made. All raise outside of the handler, so that neither the message nor the exception's
context keeps DuckDB's text.
"""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import duckdb
import pyarrow as arrow

from common.errors import DataSourceError
from site_client.sources.file_refusal import refuse_file

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_LINE_OF_CSV: Final = re.compile(r"\A(?:Invalid Input Error: )?CSV Error on Line: ([0-9]{1,18})\n")
"""Anchored: what follows holds the line itself, and is never looked at."""
_DATABASE_ERRORS: Final = (duckdb.Error, arrow.ArrowException, OSError, ValueError, RuntimeError)
"""DuckDB's own, and what its Python binding raises for texts and numbers that it cannot pass on."""
_GLOB: Final = re.compile(r"[*?[]")
_CHUNK_BYTES: Final = 1 << 20


def sql_name(name: str) -> str:
    """Return a column's or table's name as an SQL identifier, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def sql_text(text: str) -> str:
    """Return a text as an SQL literal, whatever it contains."""
    return "'" + text.replace("'", "''") + "'"


def sql_file(path: Path) -> str:
    """Return a file as an SQL literal; a name's `*`, `?` and `[` stand for themselves."""
    return sql_text(_GLOB.sub(r"[\g<0>]", str(path)))


def sql_files(paths: Sequence[Path]) -> str:
    """Return files as an SQL list."""
    return f"[{', '.join(map(sql_file, paths))}]"


def run_sql(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    *,
    place: str,
    parameters: Sequence[object] = (),
) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows.

    Args:
        connection: see `local_database`.
        statement: built with `sql_name` and `sql_text` where the mapping's words enter it.
        place: the file, or files, that the statement reads.
        parameters: of its question marks.

    Raises:
        DataSourceError: naming the place and, of a CSV file, the line.
    """
    rows: list[tuple[Any, ...]] = _attempt(
        lambda: connection.execute(statement, list(parameters)).fetchall(), place
    )
    return rows


def stream_sql(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    *,
    place: str,
    parameters: Mapping[str, object],
    batch_rows: int,
) -> Iterator[arrow.RecordBatch]:
    """Execute a query and yield its rows in batches; see `run_sql`.

    Raises:
        DataSourceError: as `run_sql`, also in the middle of the rows.
    """
    batches = _attempt(
        lambda: connection.sql(statement, params=dict(parameters)).to_arrow_reader(batch_rows),
        place,
    )
    while (batch := _attempt(lambda: next(batches, None), place)) is not None:
        yield batch


def _attempt(call: Callable[[], Any], place: str) -> Any:
    try:
        return call()
    except _DATABASE_ERRORS as error:
        problem = _without_text(place, error)
    raise problem


def hide_database_text(
    place: str,
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator that turns DuckDB's errors into `run_sql`'s.

    Args:
        place: what the function reads.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def decorated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            try:
                return function(*args, **kwargs)
            except duckdb.Error as error:
                problem = _without_text(place, error)
            raise problem

        return decorated

    return decorate


def _without_text(place: str, error: Exception) -> DataSourceError:
    said = str(error)  # never shown
    if isinstance(error, duckdb.OutOfMemoryException) or "No space left on device" in said[-200:]:
        return DataSourceError(
            f"{place}: the agent's memory or disk does not suffice to read it",
            expected="room in memory_mb_max and in the scratch folder",
            arrived="none left",
            todo="give the agent more memory, or more disk under its scratch folder",
        )
    found = _LINE_OF_CSV.match(said)
    line = f", line {found[1]}" if found else ""
    return refuse_file(
        f"{place}{line}: cannot be read",
        expected="a whole file: CSV in the declared encoding, each row as wide as the header, with "
        "one kind of line end; or Parquet",
    )


def refuse_column(file: str, column: str, columns: int) -> DataSourceError:
    """Return the refusal of a file without a column that the mapping names."""
    return refuse_file(
        f"{file}: column {column!r} is missing",
        expected=f"the column {column!r}",
        arrived=f"{columns} other column(s)",
        todo="correct the mapping in site.toml (also `delimiter`), or export the table with it",
    )


def refuse_alike(file: str, columns: Sequence[str]) -> None:
    """Refuse columns whose names differ in case alone: SQL cannot tell them apart.

    Raises:
        DataSourceError: see above.
    """
    if len({column.casefold() for column in columns}) < len(columns):
        raise refuse_file(
            f"{file}: two columns have one name",
            expected="each name once, capital letters counting as small ones",
            arrived="a name a second time",
            todo="rename one of them, or leave it out of the export",
        )


def check_gzip(path: Path, *, name: str) -> None:
    """Refuse a gzip file whose end or checksum is wrong: DuckDB reads over both.

    Raises:
        DataSourceError: see above.
    """
    try:
        with gzip.open(path, "rb") as stream:
            while stream.read(_CHUNK_BYTES):
                pass
    except (OSError, EOFError, zlib.error):
        pass
    else:
        return
    raise refuse_file(
        f"{name}: the gzip file is damaged",
        expected="a whole gzip file with the right checksum",
        todo="copy or export the file again",
    )
