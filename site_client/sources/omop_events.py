"""Typed tables of the CDM to events: which record is one, and the count of those that are not."""

# Names and paths are quoted by us; SQL has no parameters where they stand.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from site_client.sources.events import BIRTH, DEATH, SEX, YEAR_MIN, Exclusion, SourceCounts
from site_client.sources.omop_concepts import ANSWERS, CODES, LOCAL, UNITS, VISITS
from site_client.sources.omop_staging import STAGED, Clinical
from site_client.sources.source_files import run_sql, sql_file, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

PERSONS: Final = "omop_persons"
"""Temporary table `person_id`, each once."""

_NULLS: Final = "NULL::DOUBLE AS numeric_value, NULL::VARCHAR AS unit, NULL::VARCHAR AS text_value"
_SEX: Final = (
    "CASE gender_concept_id WHEN 8507 THEN 'male' WHEN 8532 THEN 'female' "
    "WHEN 8521 THEN 'other' ELSE 'unknown' END"
)
_TIMES: Final = frozenset({Exclusion.TIME_UNREADABLE, Exclusion.TIME_IMPOSSIBLE})


@dataclass
class EventParts:
    """Writes events of one table after the other into a scratch folder, and counts.

    Args:
        connection: DuckDB.
        scratch: the folder.
        end: the first moment that is impossible.
        counts: filled on the way.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    end: datetime
    counts: SourceCounts
    _written: list[Path] = field(default_factory=list)

    def persons(self, staged: str) -> None:
        """Keep who is a patient of the source; birth and sex."""
        run_sql(
            self.connection,
            f"CREATE OR REPLACE TEMP TABLE {PERSONS} AS "
            f"SELECT DISTINCT person_id FROM {staged} WHERE person_id IS NOT NULL",
            place=STAGED,
        )
        self._bound_to_person("person", staged, BIRTH)
        self._write(
            f"SELECT person_id::VARCHAR AS subject_id, NULL::TIMESTAMP AS time, "
            f"{sql_text(SEX)} AS code, NULL::DOUBLE AS numeric_value, NULL::VARCHAR AS unit, "
            f"{_SEX} AS text_value FROM {staged} WHERE person_id IS NOT NULL"
        )

    def deaths(self, staged: str) -> None:
        """Death."""
        self._bound_to_person("death", staged, DEATH)

    def clinical(self, staged: str, what: Clinical) -> None:
        """Events of one clinical table."""
        codes = VISITS if what.events else CODES
        judged = f"""(
            SELECT s.*, {
            self._reason(f'''
                WHEN a.source IS NULL AND b.source IS NULL THEN CASE
                WHEN coalesce(s.concept_id, 0) = 0 AND coalesce(s.source_concept_id, 0) = 0
                    AND NOT s.has_source_value
                THEN {sql_text(Exclusion.NO_CODE.name)} ELSE {sql_text(Exclusion.UNMAPPED.name)} END
                ''')
        } AS reason,
                coalesce(a.source, b.source) AS chosen,
                s.has_number AND NOT coalesce(isfinite(s.number), false) AS is_bad_number
            FROM {staged} AS s LEFT JOIN {PERSONS} AS p ON p.person_id = s.person_id
            LEFT JOIN (SELECT DISTINCT source FROM {codes}) AS a ON a.source = s.concept_id
            LEFT JOIN (SELECT DISTINCT source FROM {codes}) AS b ON b.source = s.source_concept_id
        )"""
        if what.optional_time:
            # The same records once more, for the end of the stay: only its time is news.
            self._count(judged, only=_TIMES)
        else:
            self._count_records(what.table, staged)
            reasons = self._count(judged)
            if Exclusion.UNMAPPED in reasons:
                self._count_unmapped(judged, what.table)
        prefix = f"{sql_text(what.events + '/')} || " if what.events else ""
        self._write(
            f"""
            SELECT j.person_id::VARCHAR AS subject_id, j.time, {prefix}c.code AS code,
                CASE WHEN isfinite(j.number) THEN j.number END AS numeric_value,
                coalesce(u.code, j.unit_source_value) AS unit,
                coalesce(t.code, j.value_text) AS text_value
            FROM {judged} AS j JOIN {codes} AS c ON c.source = j.chosen
            LEFT JOIN {UNITS} AS u ON u.source = j.unit_concept_id
            LEFT JOIN {ANSWERS} AS t ON t.source = j.value_concept_id
            WHERE j.reason IS NULL
            """
        )

    def finish(self, table: str, whole: Path) -> None:
        """Create the event table as a view over the file `whole`, each event once."""
        parts = f"read_parquet([{', '.join(sql_file(path) for path in self._written)}])"
        run_sql(
            self.connection,
            f"COPY (SELECT DISTINCT * FROM {parts}) TO {sql_text(str(whole))} (FORMAT parquet)",
            place=STAGED,
        )
        events = f"read_parquet({sql_file(whole)})"
        self._exclude(
            Exclusion.DUPLICATE,
            self._number(f"SELECT count(*) FROM {parts}")
            - self._number(f"SELECT count(*) FROM {events}"),
        )
        run_sql(
            self.connection,
            f"CREATE OR REPLACE VIEW {sql_name(table)} AS SELECT * FROM {events}",
            place=STAGED,
        )

    def _bound_to_person(self, table: str, staged: str, code: str) -> None:
        judged = (
            f"(SELECT s.*, {self._reason('')} AS reason, false AS is_bad_number "
            f"FROM {staged} AS s "
            f"LEFT JOIN {PERSONS} AS p ON p.person_id = s.person_id)"
        )
        self._count_records(table, staged)
        self._count(judged)
        self._write(
            f"SELECT person_id::VARCHAR AS subject_id, time, {sql_text(code)} AS code, {_NULLS} "
            f"FROM {judged} WHERE reason IS NULL"
        )

    def _reason(self, after_time: str) -> str:
        end = self.end.isoformat(sep=" ")
        return (
            f"CASE WHEN p.person_id IS NULL THEN {sql_text(Exclusion.NO_SUBJECT.name)} "
            f"WHEN s.time IS NULL THEN {sql_text(Exclusion.TIME_UNREADABLE.name)} "
            f"WHEN s.time < TIMESTAMP '{YEAR_MIN}-01-01' OR s.time >= TIMESTAMP '{end}' "
            f"THEN {sql_text(Exclusion.TIME_IMPOSSIBLE.name)} {after_time} END"
        )

    def _write(self, select: str) -> None:
        path = self.scratch / f"part_{len(self._written)}.parquet"
        self._written.append(path)
        run_sql(
            self.connection,
            f"COPY ({select}) TO {sql_text(str(path))} (FORMAT parquet)",
            place=STAGED,
        )

    def _count_records(self, table: str, staged: str) -> None:
        self.counts.records[table] = self._number(f"SELECT count(*) FROM {staged}")

    def _count(
        self, judged: str, *, only: frozenset[Exclusion] = frozenset(Exclusion)
    ) -> frozenset[Exclusion]:
        rows = run_sql(
            self.connection,
            "SELECT reason, count(*), count(*) FILTER (is_bad_number) "
            f"FROM {judged} GROUP BY reason",
            place=STAGED,
        )
        for name, number, bad_numbers in rows:
            reason = Exclusion[name] if name else Exclusion.VALUE_UNREADABLE
            if reason in only:
                self._exclude(reason, number if name else bad_numbers)
        return frozenset(Exclusion[name] for name, _, _ in rows if name)

    def _count_unmapped(self, judged: str, table: str) -> None:
        rows = run_sql(
            self.connection,
            f"""
            SELECT coalesce(
                b.vocabulary || '/' || b.code, a.vocabulary || '/' || a.code,
                CASE WHEN coalesce(j.concept_id, 0) <> 0 OR coalesce(j.source_concept_id, 0) <> 0
                THEN '(concept not in the vocabulary)'
                ELSE '(source value not in the vocabulary)' END
            ) AS label, count(*)
            FROM {judged} AS j LEFT JOIN {LOCAL} AS a ON a.id = j.concept_id
            LEFT JOIN {LOCAL} AS b ON b.id = j.source_concept_id
            WHERE j.reason = {sql_text(Exclusion.UNMAPPED.name)} GROUP BY label
            """,
            place=STAGED,
        )
        found: Mapping[str, int] = dict(rows)
        for label, number in found.items():
            self.counts.unmapped[f"{table} {label}"] = number

    def _exclude(self, reason: Exclusion, number: int) -> None:
        if number:
            self.counts.excluded[reason] = self.counts.excluded.get(reason, 0) + number

    def _number(self, select: str) -> int:
        ((found,),) = run_sql(self.connection, select, place=STAGED)
        return int(found)
