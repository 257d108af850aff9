"""The OMOP Common Data Model in a DuckDB database file: a source of events."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from common.errors import DataSourceError
from site_client.sources.events import SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop import (
    check_needed,
    declared,
    narrower_codes,
    write_omop_events,
)
from site_client.sources.omop_files import SourceTable, described
from site_client.sources.omop_staging import COLUMNS
from site_client.sources.snapshot import end_of_data, snapshot_digest
from site_client.sources.source_files import run_sql, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb


class OmopDuckDB:
    """A DuckDB file with the CDM's tables in one schema; it is opened read-only.

    Args:
        path: the file.
        schema: of the tables.
        data_until: the first day after the data; by default see `end_of_data`.
        time_zone: of the site, for times that are stored with an offset.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str = "main",
        data_until: date | None = None,
        time_zone: ZoneInfo | None = None,
    ) -> None:
        self._path = path
        self._schema = schema
        self._until = data_until
        self._zone = time_zone

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        log = self._path.with_name(f"{self._path.name}.wal")
        return [
            (path.name, path) for path in (self._path, log) if path == self._path or log.exists()
        ]

    def fingerprint(self) -> str:
        """Return a digest of what is declared and of the content of the file and its log."""
        said = declared(self._until, self._zone, self._schema)
        return snapshot_digest("omop-duckdb", said, self.files())

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create a view of all events, over files in `scratch`; see `EventSource`."""
        del codes
        with self._attached(connection) as tables:
            check_needed(tables)
            return write_omop_events(
                connection,
                table,
                tables,
                scratch=scratch,
                end=end_of_data(self._until, self.files()),
                time_zone=self._zone,
            )

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code's narrower codes by `concept_ancestor`, itself included."""
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            with (
                open_local(scratch=scratch) as connection,
                self._attached(connection) as tables,
            ):
                return narrower_codes(connection, codes, tables, scratch=scratch)

    @contextmanager
    def _attached(self, connection: duckdb.DuckDBPyConnection) -> Iterator[dict[str, SourceTable]]:
        alias = f"cdm_{secrets.token_hex(8)}"
        rows: list[tuple[str]] | None = None
        # A path that is not there would become a new database.
        if self._path.is_file():
            with suppress(DataSourceError):
                run_sql(
                    connection,
                    f"ATTACH {sql_text(str(self._path))} AS {alias} (TYPE duckdb, READ_ONLY)",
                    place=self._path.name,
                )
                rows = run_sql(
                    connection,
                    "SELECT table_name FROM duckdb_tables() "
                    "WHERE database_name = ? AND schema_name = ?",
                    place=self._path.name,
                    parameters=[alias, self._schema],
                )
        if rows is None:
            raise DataSourceError(
                f"{self._path.name}: the DuckDB file cannot be opened",
                expected="a DuckDB database of a version that this one reads, not in use elsewhere",
                arrived="something else",
                todo="correct `path` under [source], or close the program that writes the file",
            )
        try:
            yield {
                name.lower(): described(
                    connection,
                    name.lower(),
                    f"{self._path.name}, table {name.lower()}",
                    f"{alias}.{sql_name(self._schema)}.{sql_name(name)}",
                )
                for (name,) in rows
                if name.lower() in COLUMNS
            }
        finally:
            run_sql(connection, f"DETACH {alias}", place=self._path.name)
