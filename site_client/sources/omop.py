"""The OMOP Common Data Model, versions 5.3 and 5.4, as files in a folder: a source of events.

Source: OHDSI, "OMOP Common Data Model" v5.3 and v5.4 (ohdsi.github.io/CommonDataModel).
"""

# Names and paths are quoted by us; SQL has no parameters where they stand.
# ruff: noqa: S608

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from common.errors import DataSourceError
from site_client.sources.events import SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop_concepts import TABLES, descendants, write_mapping
from site_client.sources.omop_events import PERSONS, EventParts
from site_client.sources.omop_files import SourceTable, find_tables, open_file
from site_client.sources.omop_staging import CLINICAL, COLUMNS, STAGED, Clinical, Staging
from site_client.sources.snapshot import end_of_data, snapshot_digest
from site_client.sources.source_files import run_sql

if TYPE_CHECKING:
    import duckdb

_VOCABULARY: Final = ("concept", "concept_relationship", "concept_ancestor")
_TABLES: Final = tuple(COLUMNS)


class OmopFolder:
    """A folder of CSV (comma or tab, also gzipped) and Parquet files, one a table of the CDM.

    `person` and `concept` are needed; another table that is absent has 0 records.

    Args:
        folder: where the files lie; names in any case, also numbered, as `2b_concept.csv`.
        data_until: the first day after the data; by default see `end_of_data`.
        time_zone: of the site, for times that are stored with an offset; None: such a time is
            unreadable, for it is not known which wall clock it belongs to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_until: date | None = None,
        time_zone: ZoneInfo | None = None,
    ) -> None:
        self._folder = folder
        self._until = data_until
        self._zone = time_zone

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        paths = find_tables(self._folder, _TABLES)
        check_needed(paths)
        return [(path.name, path) for path in paths.values()]

    def fingerprint(self) -> str:
        """Return a digest of what is declared and of the content of the files in use."""
        said = declared(self._until, self._zone)
        return snapshot_digest("omop-folder", said, self.files())

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
        return write_omop_folder(
            connection,
            table,
            self._folder,
            scratch=scratch,
            end=end_of_data(self._until, self.files()),
            time_zone=self._zone,
        )

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code's narrower codes by `concept_ancestor`, itself included."""
        paths = find_tables(self._folder, ("concept", "concept_ancestor"))
        with tempfile.TemporaryDirectory() as name, open_local(scratch=Path(name)) as connection:
            tables = {table: open_file(connection, table, path) for table, path in paths.items()}
            return narrower_codes(connection, codes, tables, scratch=Path(name))


def write_omop_folder(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    folder: Path,
    *,
    scratch: Path,
    end: datetime,
    time_zone: ZoneInfo | None,
) -> SourceCounts:
    """Create a view of the events of a folder's tables; see `write_omop_events`."""
    paths = find_tables(folder, _TABLES)
    check_needed(paths)
    tables = {name: open_file(connection, name, path) for name, path in paths.items()}
    return write_omop_events(
        connection, table, tables, scratch=scratch, end=end, time_zone=time_zone
    )


def declared(
    data_until: date | None, time_zone: ZoneInfo | None, schema: str | None = None
) -> dict[str, str | None]:
    """Return what else than the tables decides which events there are, for fingerprints."""
    return {
        "data_until": data_until.isoformat() if data_until else None,
        "schema": schema,
        "time_zone": time_zone.key if time_zone else None,
    }


def narrower_codes(
    connection: duckdb.DuckDBPyConnection,
    codes: frozenset[str],
    tables: Mapping[str, SourceTable],
    *,
    scratch: Path,
) -> dict[str, frozenset[str]]:
    """Return each code's narrower codes by these tables; without `concept_ancestor`, itself only.

    Raises:
        DataSourceError: a table is damaged or lacks a column.
    """
    if "concept" not in tables or "concept_ancestor" not in tables:
        return {code: frozenset({code}) for code in codes}
    staging = Staging(connection, scratch=scratch, time_zone=None)
    concept = staging.concept(tables["concept"])
    ancestor = staging.ancestor(tables["concept_ancestor"])
    return descendants(connection, codes, concept=concept, ancestor=ancestor)


def write_omop_events(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    tables: Mapping[str, SourceTable],
    *,
    scratch: Path,
    end: datetime,
    time_zone: ZoneInfo | None,
) -> SourceCounts:
    """Create a view of the events of these tables of the CDM, `person` and `concept` among them.

    Args:
        connection: DuckDB.
        table: the view's name.
        tables: by the CDM's name.
        scratch: a folder of this build.
        end: the first moment that is impossible.
        time_zone: for times with an offset.

    Raises:
        DataSourceError: a table is damaged or lacks a column.
    """
    whole = scratch / f"events_{secrets.token_hex(8)}.parquet"
    counts = SourceCounts(records={name: 0 for name in _TABLES if name not in _VOCABULARY})
    with tempfile.TemporaryDirectory(dir=scratch) as parts_folder:
        staging = Staging(connection, scratch=Path(parts_folder), time_zone=time_zone)
        parts = EventParts(connection, Path(parts_folder), end, counts)
        staged = _stage(staging, tables)
        try:
            _write(connection, staged, parts)
            parts.finish(table, whole)
        except DataSourceError:
            whole.unlink(missing_ok=True)
            raise
    return counts


@dataclass(frozen=True)
class _Staged:
    persons: str
    deaths: str | None
    clinical: tuple[tuple[Clinical, str], ...]
    concept: str
    maps_to: str | None


def _stage(staging: Staging, tables: Mapping[str, SourceTable]) -> _Staged:
    relationship = tables.get("concept_relationship")
    return _Staged(
        persons=staging.person(tables["person"]),
        deaths=staging.death(tables["death"]) if "death" in tables else None,
        clinical=tuple(
            (what, staging.clinical(tables[what.table], what))
            for what in CLINICAL
            if what.table in tables
        ),
        concept=staging.concept(tables["concept"]),
        maps_to=staging.maps_to(relationship) if relationship else None,
    )


def _write(connection: duckdb.DuckDBPyConnection, staged: _Staged, parts: EventParts) -> None:
    write_mapping(
        connection,
        concept=staged.concept,
        maps_to=staged.maps_to,
        used=_used(staged.clinical),
    )
    parts.persons(staged.persons)
    if staged.deaths:
        parts.deaths(staged.deaths)
    for what, relation in staged.clinical:
        parts.clinical(relation, what)
    for name in (*TABLES, PERSONS):
        run_sql(connection, f"DROP TABLE {name}", place=STAGED)


def _used(clinical: tuple[tuple[Clinical, str], ...]) -> list[str]:
    columns = ("concept_id", "source_concept_id", "unit_concept_id", "value_concept_id")
    selects = [f"SELECT {column} FROM {staged}" for _, staged in clinical for column in columns]
    return selects or ["SELECT NULL::BIGINT"]


def check_needed(tables: Collection[str]) -> None:
    """Raise `DataSourceError` where `person` or `concept` is not among the tables."""
    absent = [name for name in ("person", "concept") if name not in tables]
    if absent:
        raise DataSourceError(
            f"the OMOP source has no table {' and no table '.join(absent)}",
            expected="person and concept; in a folder as .csv, .csv.gz or .parquet",
            arrived=f"{len(tables)} of the {len(_TABLES)} tables that are read",
            todo="export the missing table(s), or correct [source] in site.toml",
        )
