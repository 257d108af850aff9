"""Medical Event Data Standard: Parquet files read in place, through a view over them.

Sources: Medical-Event-Data-Standard/meds 0.4 (`DataSchema`, `CodeMetadataSchema`,
`DatasetMetadataSchema`). The standard's numbers are 32-bit: the event table has the decimal
that was recorded, so that 88.4 is 88.4 and not 88.40000152587890625.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from site_client.sources.code_map import CODES_MAX, merge_code_maps
from site_client.sources.events import YEAR_MIN, Exclusion, SourceCounts
from site_client.sources.file_refusal import refuse_file
from site_client.sources.meds_codes import MedsCodes
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.meds_schema import Shards, read_parents, read_shards, shard_columns
from site_client.sources.snapshot import end_of_data, snapshot_digest
from site_client.sources.source_files import run_sql, sql_files, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

UNMAPPED_LISTED_MAX: Final = 1000
OTHER_CODES: Final = "(rarer codes)"
_METADATA: Final = ("metadata/codes.parquet", "metadata/dataset.json")


@dataclass(frozen=True)
class _Counted:
    """One distinct code of the files, and how many of its records are what."""

    code: str | None
    records: int
    no_subject: int
    time_impossible: int
    value_unreadable: int
    value_unreadable_in_time: int


class MedsFolder:
    """A MEDS data set, as an `EventSource`.

    Args:
        mapping: declared in site.toml.
        folder: where site.toml lies; a relative path starts there.
        shards: name and path of each to be read instead of all.
        end: the first moment that is impossible, instead of what mapping and files say.
    """

    def __init__(
        self,
        mapping: MedsMapping,
        *,
        folder: Path,
        shards: Sequence[tuple[str, Path]] | None = None,
        end: datetime.datetime | None = None,
    ) -> None:
        self._mapping = mapping
        self._folder = folder
        self._root = folder / mapping.path
        self._given_shards = None if shards is None else list(shards)
        self._given_end = end

    def of_shards(
        self, shards: Sequence[tuple[str, Path]], *, end: datetime.datetime
    ) -> MedsFolder:
        """Return the same data set with other shards and another end."""
        part = MedsFolder(self._mapping, folder=self._folder, shards=shards, end=end)
        part._codes = self._codes  # what codes mean is the same, and takes time to read
        return part

    def shards(self) -> list[tuple[str, Path]]:
        """Return name and path of each file of events; raises `DataSourceError` without any."""
        return self._shards()

    def columns(self) -> dict[str, str]:
        """Return which column of the shards has each role of the event table."""
        return shard_columns(self._mapping)

    def end(self) -> datetime.datetime:
        """Return the first moment that is impossible; raises `DataSourceError`."""
        if self._given_end is not None:
            return self._given_end
        return end_of_data(self._mapping.data_until, self._files())

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        return self._files()

    def fingerprint(self) -> str:
        """Return a digest of the mapping and of the files' names and content."""
        declared = self._mapping.model_dump(mode="json")
        return snapshot_digest("meds-source", declared, self._files())

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create the event table: a view over the files; see `EventSource`.

        Two further names in the connection begin with `table`: the records, and what each distinct
        code stands for.
        """
        del scratch
        shards = read_shards(self._mapping, self._shards(), with_metadata=self._root)
        end = self.end()
        records, mapped = f"{table}_records", f"{table}_codes"
        # Exact repetitions can be told apart only among all events.
        wanted = None if self._mapping.drop_duplicates else codes
        select = self._records_select(shards)
        run_sql(connection, f"CREATE VIEW {sql_name(records)} AS {select}", place=self._place)
        counted = self._count(connection, records, end)
        counts = self._excluded(counted)
        self._write_codes(connection, mapped, counted, wanted)
        self._write_view(connection, table, end)
        if self._mapping.drop_duplicates:
            self._drop_duplicates(connection, table, counts)
        return counts

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code with what the site codes became whose parent it is."""
        return self._codes.descendants(codes)

    @cached_property
    def _codes(self) -> MedsCodes:
        declared = merge_code_maps(
            self._mapping.code_map, {name: self._folder / name for name in self._mapping.code_maps}
        )
        path = self._root / _METADATA[0]
        parents = read_parents(path, is_needed=bool(self._mapping.map_to_parents))
        return MedsCodes(mapping=self._mapping, declared=declared, parents=parents)

    @property
    def _place(self) -> str:
        return self._root.name or "."

    def _shards(self) -> list[tuple[str, Path]]:
        if self._given_shards is not None:
            return self._given_shards
        if self._root.is_dir():
            found = sorted(path for path in self._root.glob("data/**/*.parquet") if path.is_file())
            shards = [(path.relative_to(self._root).as_posix(), path) for path in found]
        else:
            shards = [(self._root.name, self._root)]
        if not shards:
            raise refuse_file(
                f"{self._place}: no data",
                expected="Parquet files under data/, as the standard says",
                arrived="none",
                todo="correct `path` under [source] in site.toml",
            )
        return shards

    def _files(self) -> list[tuple[str, Path]]:
        metadata = [(name, self._root / name) for name in _METADATA]
        maps = [(f"code map {name}", self._folder / name) for name in self._mapping.code_maps]
        return [*self._shards(), *(item for item in metadata if item[1].is_file()), *maps]

    def _records_select(self, shards: Shards) -> str:
        return f"""
            SELECT {shards.subject_id} AS subject_id, {shards.time} AS time,
                {shards.code} AS code, {shards.numeric_value} AS numeric_value,
                {shards.is_finite} AS is_finite, {shards.has_subject} AS has_subject,
                {self._known_unit(shards.unit)} AS unit, {shards.text_value} AS text_value
            FROM read_parquet({sql_files([path for _, path in self._shards()])},
                union_by_name = true, hive_partitioning = false)"""  # noqa: S608

    def _known_unit(self, unit: str) -> str:
        missing = ", ".join(sql_text(text) for text in {"", *self._mapping.unit_missing})
        return (
            unit
            if unit == "NULL::VARCHAR"
            else f"CASE WHEN {unit} NOT IN ({missing}) THEN {unit} END"
        )

    def _count(
        self, connection: duckdb.DuckDBPyConnection, records: str, end: datetime.datetime
    ) -> list[_Counted]:
        def by_code(what: str, where: str, limit: str = "") -> dict[str | None, tuple[int, ...]]:
            chosen = f"FROM {sql_name(records)} WHERE {where} GROUP BY code {limit}"
            rows = run_sql(connection, f"SELECT code, {what} {chosen}", place=self._place)
            return {code: tuple(counts) for code, *counts in rows}

        # One query for each kind: a filter on one column is checked as the column is unpacked.
        every = by_code("count(*)", "true", f"LIMIT {CODES_MAX + 1}")
        if len(every) > CODES_MAX:
            raise refuse_file(
                f"{self._place}: the code column has too many different codes",
                expected=f"at most {CODES_MAX:,}",
                arrived="more; it is probably another column",
            )
        in_time = f"coalesce({_in_time(end)}, true)"
        nobody = by_code("count(*)", "NOT has_subject")
        late = by_code("count(*)", f"has_subject AND {_out_of_time(end)}")
        unreadable = by_code(
            f"count(*), count(*) FILTER ({in_time})", "has_subject AND NOT is_finite"
        )
        return [
            _Counted(
                code,
                *records_of,
                *nobody.get(code, (0,)),
                *late.get(code, (0,)),
                *unreadable.get(code, (0, 0)),
            )
            for code, records_of in every.items()
        ]

    def _excluded(self, counted: Iterable[_Counted]) -> SourceCounts:
        excluded = dict.fromkeys(Exclusion, 0)
        unmapped: dict[str, int] = {}
        total = 0
        for item in counted:
            total += item.records
            excluded[Exclusion.NO_SUBJECT] += item.no_subject
            known = item.records - item.no_subject
            if not item.code:
                excluded[Exclusion.NO_CODE] += known
                continue
            mapped = self._codes.mapped(item.code)
            if not mapped:
                excluded[Exclusion.UNMAPPED] += known
                unmapped[item.code] = known
            elif all(target.is_timed for target in mapped):
                excluded[Exclusion.TIME_IMPOSSIBLE] += item.time_impossible
                excluded[Exclusion.VALUE_UNREADABLE] += item.value_unreadable_in_time
            else:
                excluded[Exclusion.VALUE_UNREADABLE] += item.value_unreadable
        return SourceCounts(
            records={"data": total},
            excluded={reason: count for reason, count in excluded.items() if count},
            unmapped=most_frequent(unmapped),
        )

    def _write_codes(
        self,
        connection: duckdb.DuckDBPyConnection,
        mapped: str,
        counted: Iterable[_Counted],
        wanted: frozenset[str] | None,
    ) -> None:
        rows = [
            (item.code, target.code, target.unit, target.text, target.is_timed)
            for item in counted
            if item.code
            for target in self._codes.mapped(item.code)
            if wanted is None or target.code in wanted
        ]
        name = sql_name(mapped)
        run_sql(
            connection,
            f"CREATE TABLE {name} (site_code VARCHAR, code VARCHAR, unit VARCHAR, text VARCHAR, "
            "is_timed BOOLEAN)",
            place=self._place,
        )
        run_sql(
            connection,
            f"INSERT INTO {name} SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BOOLEAN[])",
            place=self._place,
            parameters=[[row[index] for row in rows] for index in range(5)],
        )

    def _write_view(
        self, connection: duckdb.DuckDBPyConnection, table: str, end: datetime.datetime
    ) -> None:
        run_sql(
            connection,
            f"""
            CREATE VIEW {sql_name(table)} AS
            SELECT subject_id, CASE WHEN is_timed THEN time END AS time, mapped.code AS code,
                CASE WHEN is_finite THEN numeric_value END AS numeric_value,
                coalesce(record.unit, mapped.unit) AS unit,
                coalesce(mapped.text, text_value) AS text_value
            FROM {sql_name(f"{table}_records")} AS record
            JOIN {sql_name(f"{table}_codes")} AS mapped ON record.code = mapped.site_code
            WHERE has_subject AND (time IS NULL OR NOT is_timed OR {_in_time(end)})""",  # noqa: S608
            place=self._place,
        )

    def _drop_duplicates(
        self, connection: duckdb.DuckDBPyConnection, table: str, counts: SourceCounts
    ) -> None:
        name, repeated = sql_name(table), sql_name(f"{table}_repeated")
        run_sql(connection, f"ALTER VIEW {name} RENAME TO {repeated}", place=self._place)
        run_sql(
            connection,
            f"CREATE TABLE {name} AS SELECT DISTINCT * FROM {repeated}",  # noqa: S608
            place=self._place,
        )
        ((removed,),) = run_sql(
            connection,
            f"SELECT (SELECT count(*) FROM {repeated}) - (SELECT count(*) FROM {name})",  # noqa: S608
            place=self._place,
        )
        if removed:
            counts.excluded[Exclusion.DUPLICATE] = removed


def most_frequent(unmapped: Mapping[str, int]) -> dict[str, int]:
    """Return the most frequent codes, and one entry for the rest."""
    ordered = sorted(unmapped.items(), key=lambda item: (-item[1], item[0]))
    listed = dict(ordered[:UNMAPPED_LISTED_MAX])
    rest = sum(count for _, count in ordered[UNMAPPED_LISTED_MAX:])
    return {**listed, OTHER_CODES: rest} if rest else listed


def _in_time(end: datetime.datetime) -> str:
    last = end.isoformat(sep=" ")
    return f"(time >= TIMESTAMP '{YEAR_MIN}-01-01' AND time < TIMESTAMP '{last}')"


def _out_of_time(end: datetime.datetime) -> str:
    last = end.isoformat(sep=" ")
    return f"(time < TIMESTAMP '{YEAR_MIN}-01-01' OR time >= TIMESTAMP '{last}')"
