"""The OMOP Common Data Model in a DuckDB database file: a source of events."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from common.errors import DataSourceError
from site_client.sources.events import SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop import (
    CLOCK_AHEAD,
    check_needed,
    narrower_codes,
    write_omop_events,
)
from site_client.sources.omop_files import SourceTable, described
from site_client.sources.omop_staging import COLUMNS
from site_client.sources.source_files import sql_text

if TYPE_CHECKING:
    import duckdb


class OmopDuckDB:
    """A DuckDB file with the CDM's tables in one schema; it is opened read-only.

    Args:
        path: the file.
        schema: of the tables.
        newest: a later time is impossible; None: when the file was written.
        time_zone: of the site, for times that are stored with an offset.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str = "main",
        newest: datetime | None = None,
        time_zone: ZoneInfo | None = None,
    ) -> None:
        self._path = path
        self._schema = schema
        self._newest = newest
        self._zone = time_zone

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        log = self._path.with_name(f"{self._path.name}.wal")
        return [
            (path.name, path) for path in (self._path, log) if path == self._path or log.exists()
        ]

    def fingerprint(self) -> str:
        """Return the SHA-256 of name, size and time of change of the file and its log."""
        digest = hashlib.sha256(self._schema.encode())
        for path in (self._path, self._path.with_name(f"{self._path.name}.wal")):
            if path.exists():
                status = path.stat()
                digest.update(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        return digest.hexdigest()

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
            written = datetime.fromtimestamp(self._path.stat().st_mtime, tz=UTC)
            return write_omop_events(
                connection,
                table,
                tables,
                scratch=scratch,
                newest=self._newest or written + CLOCK_AHEAD,
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
        import duckdb

        alias = f"cdm_{secrets.token_hex(8)}"
        rows: list[tuple[str]] | None = None
        try:
            # A path that is not there would become a new database.
            if self._path.is_file():
                connection.execute(
                    f"ATTACH {sql_text(str(self._path))} AS {alias} (TYPE duckdb, READ_ONLY)"
                )
                rows = connection.execute(
                    "SELECT table_name FROM duckdb_tables() "
                    "WHERE database_name = ? AND schema_name = ?",
                    [alias, self._schema],
                ).fetchall()
        except (duckdb.Error, ValueError, RuntimeError):
            rows = None
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
                    f"{alias}.{_quoted(self._schema)}.{_quoted(name)}",
                )
                for (name,) in rows
                if name.lower() in COLUMNS
            }
        finally:
            connection.execute(f"DETACH {alias}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
