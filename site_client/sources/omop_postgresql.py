"""The OMOP Common Data Model in a PostgreSQL database: a source of events.

Only the columns that events are made of are taken, in one read-only snapshot, into scratch files
that are deleted with the build; from there on it is the folder's reader.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, LiteralString, TypeVar
from zoneinfo import ZoneInfo

from common.errors import DataSourceError
from site_client.sources.events import SourceCounts
from site_client.sources.omop import OmopFolder, declared, write_omop_folder
from site_client.sources.omop_staging import COLUMNS
from site_client.sources.snapshot import CLOCK_SLACK, content_digest, end_of_data

if TYPE_CHECKING:
    import duckdb
    import psycopg

_Result = TypeVar("_Result")
_CONNECT_S_MAX: Final = 30


class OmopPostgres:
    """A PostgreSQL database with the CDM's tables or views in one schema.

    Args:
        url: libpq's, as `postgresql://reader@host/cdm`; no part of it is in any message.
        schema: of the tables.
        data_until: the first day after the data; None: `CLOCK_SLACK` after the database's clock.
        time_zone: of the site, for times that are stored with an offset.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "public",
        data_until: date | None = None,
        time_zone: ZoneInfo | None = None,
    ) -> None:
        self._url = url
        self._schema = schema
        self._until = data_until
        self._zone = time_zone

    def files(self) -> None:
        """Return None: a database has no files that a site could compare."""

    def fingerprint(self) -> str:
        """Return a digest of what stands in the columns that are read; reads every row once."""
        return self._within(self._digest)

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create a view of the events, over files in `scratch`; see `EventSource`."""
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder = Path(name)
            now = self._within(lambda session: self._export(session, tuple(COLUMNS), folder))
            end = end_of_data(self._until, ()) if self._until else now + CLOCK_SLACK
            return write_omop_folder(
                connection, table, folder, scratch=scratch, end=end, time_zone=self._zone
            )

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code's narrower codes by `concept_ancestor`, itself included."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            names = ("concept", "concept_ancestor")
            self._within(lambda session: self._export(session, names, folder))
            return OmopFolder(folder).descendants(codes)

    def _within(self, work: Callable[[psycopg.Connection], _Result]) -> _Result:
        import psycopg

        state: str | None = None
        try:
            with self._session() as session:
                return work(session)
        except (psycopg.Error, ValueError) as error:
            state = getattr(error, "sqlstate", None) or "no connection"
        # Raised here, the error has no context: that one may quote a row, a host or a password.
        raise DataSourceError(
            "the OMOP database cannot be read",
            expected="a PostgreSQL database that lets this account SELECT from the CDM's tables",
            arrived=f"an error of the database, SQLSTATE {state}",
            todo="check `url` and `schema` under [source] and the account's rights",
        )

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        import psycopg

        with psycopg.connect(
            self._url, connect_timeout=_CONNECT_S_MAX, client_encoding="utf8"
        ) as session:
            session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            session.read_only = True
            session.execute("SET LOCAL DateStyle = 'ISO'")
            session.execute("SET LOCAL extra_float_digits = 1")
            yield session

    def _export(
        self, session: psycopg.Connection, names: tuple[str, ...], folder: Path
    ) -> datetime:
        for name, select in self._selects(session, names).items():
            with (
                (folder / f"{name}.csv").open("wb") as file,
                session.cursor().copy(
                    _sql("COPY ({}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')", select)
                ) as copy,
            ):
                for block in copy:
                    file.write(block)
        row = session.execute("SELECT CAST(now() AT TIME ZONE 'UTC' AS text)").fetchone()
        assert row is not None  # noqa: S101  a SELECT of one value has one row
        return datetime.fromisoformat(row[0])

    def _digest(self, session: psycopg.Connection) -> str:
        tables: list[list[str]] = []
        for name, select in sorted(self._selects(session, tuple(COLUMNS)).items()):
            statement = _sql(
                "SELECT count(*), sum(hashtextextended(r::text, 0)::numeric), "
                "sum(hashtextextended(r::text, 1)::numeric) FROM ({}) AS r",
                select,
            )
            row = session.execute(statement).fetchone() or ()
            tables.append([name, *map(str, row)])
        return content_digest(
            "omop-postgresql", declared(self._until, self._zone, self._schema), tables
        )

    def _selects(
        self, session: psycopg.Connection, names: tuple[str, ...]
    ) -> dict[str, psycopg.sql.Composed]:
        from psycopg import sql

        rows = session.execute(
            "SELECT c.relname, a.attname FROM pg_catalog.pg_attribute AS a "
            "JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid "
            "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND lower(c.relname) = ANY(%s) AND c.relkind = ANY(%s) "
            "AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
            [self._schema, list(names), ["r", "p", "v", "m", "f"]],
        ).fetchall()
        columns: dict[str, list[str]] = {}
        for table, column in rows:
            wanted = columns.setdefault(table, [])
            if column.lower() in COLUMNS[table.lower()]:
                wanted.append(column)
        selects: dict[str, psycopg.sql.Composed] = {}
        for table, present in columns.items():
            if table.lower() in selects:
                raise DataSourceError(
                    f"the schema has the table {table.lower()} twice, in small and capital letters",
                    expected="each table of the CDM once",
                    arrived="two",
                    todo="point `schema` to a schema with one CDM",
                )
            selects[table.lower()] = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(map(sql.Identifier, present)),
                sql.Identifier(self._schema, table),
            )
        return selects


def _sql(text: LiteralString, select: psycopg.sql.Composed) -> psycopg.sql.Composed:
    from psycopg import sql

    return sql.SQL(text).format(select)
