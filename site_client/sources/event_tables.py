"""A vendor's tables with a declared mapping: patients or stays, and what was recorded of them.

Every cell is read as text and then tried as what the mapping says: a wrong cell is counted, a wrong
file is refused. With a declared date as the anchor (eICU: minutes since the unit's admission, and
no absolute time) each stay is a time line that begins on that day; the stays of one patient are put
one after another, since one patient is one unit of privacy however many stays there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from site_client.sources.code_map import is_standard_code, merge_code_maps
from site_client.sources.event_table_mapping import (
    Anchor,
    CodeColumn,
    EventEntry,
    EventTablesMapping,
    TableFile,
)
from site_client.sources.event_table_sql import (
    Relation,
    anchored,
    chosen,
    number,
    open_relation,
    own_code,
    unit_of,
)
from site_client.sources.events import BIRTH, DEATH, SEX, YEAR_MIN, Exclusion, SourceCounts
from site_client.sources.file_refusal import refuse_file
from site_client.sources.snapshot import end_of_data, snapshot_digest
from site_client.sources.source_files import run_sql, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

UNMAPPED_LISTED_MAX: Final = 1000
UNMAPPED_PATIENTS_MIN: Final = 5
"""A rarer code is not listed: in a mistaken column of codes it is somebody's own cell."""
OTHER_CODES: Final = "(rarer codes)"
_REASONS: Final = tuple(Exclusion)
_AGE_MAX: Final = 150


class EventTables:
    """A vendor's tables, as an `EventSource`.

    Args:
        mapping: declared in site.toml.
        folder: where site.toml lies; relative paths start there.
    """

    def __init__(self, mapping: EventTablesMapping, *, folder: Path) -> None:
        self._mapping = mapping
        self._folder = folder

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        return self._files()

    def fingerprint(self) -> str:
        """Return a digest of the mapping and of the files' names and content."""
        declared = self._mapping.model_dump(mode="json")
        return snapshot_digest("event-tables-source", declared, self._files())

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create the event table, a view over a table of all records; see `EventSource`.

        Further names in the connection begin with `table`.
        """
        del scratch, codes
        return _Writer(self._mapping, self._folder, self._files(), connection, table).write()

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code alone: the tables have no vocabulary."""
        return {code: frozenset({code}) for code in codes}

    def _files(self) -> list[tuple[str, Path]]:
        tables = [self._mapping.subjects.file, *(entry.file for entry in self._mapping.events)]
        names = [table.path for table in tables]
        for entry in self._mapping.events:
            if isinstance(entry.code, CodeColumn):
                names += entry.code.map_files
        return [(name, self._folder / name) for name in sorted(set(names))]


class _Writer:
    """One build of the event table."""

    def __init__(
        self,
        mapping: EventTablesMapping,
        folder: Path,
        files: list[tuple[str, Path]],
        connection: duckdb.DuckDBPyConnection,
        table: str,
    ) -> None:
        self._mapping = mapping
        self._folder = folder
        self._connection = connection
        self._table = table
        self._stays = sql_name(f"{table}_stays")
        self._records = sql_name(f"{table}_records")
        self._relations: dict[TableFile, Relation] = {}
        self._counts = SourceCounts()
        end = end_of_data(mapping.data_until, files)
        self._end = f"TIMESTAMP '{end.isoformat(sep=' ')}'"

    def write(self) -> SourceCounts:
        self._write_stays()
        run_sql(
            self._connection,
            f"CREATE TABLE {self._records} (subject_id VARCHAR, time TIMESTAMP, code VARCHAR, "
            "numeric_value DOUBLE, unit VARCHAR, text_value VARCHAR, reason UTINYINT, "
            "is_value_lost BOOLEAN, site_code VARCHAR, person VARCHAR)",
            place=self._table,
        )
        self._write_facts()
        for index, entry in enumerate(self._mapping.events):
            self._write_entry(index, entry)
        self._count_excluded()
        self._write_view()
        return self._counts

    def _relation(self, file: TableFile) -> Relation:
        if file not in self._relations:
            found = open_relation(file, folder=self._folder, missing=self._mapping.missing_values)
            self._relations[file] = found
            ((rows,),) = run_sql(
                self._connection,
                f"SELECT count(*) FROM {found.sql}",  # noqa: S608
                place=found.name,
            )
            self._counts.records[file.path] = rows
        return self._relations[file]

    def _write_stays(self) -> None:
        subjects = self._mapping.subjects
        relation = self._relation(subjects.file)
        subject = relation.cell(subjects.subject)
        key = relation.cell(subjects.key or subjects.subject)
        order = "NULL"
        anchor = "NULL::TIMESTAMP"
        if subjects.anchor is not None and subjects.anchor.time is not None:
            anchor = relation.time(subjects.anchor.time, anchor=anchor)
        if subjects.anchor is not None and subjects.anchor.stay_order is not None:
            order = number(relation.cell(subjects.anchor.stay_order))
        rows = (
            f"SELECT DISTINCT {subject} AS subject_id, {key} AS stay, {anchor} AS anchor, "  # noqa: S608
            f"{order}::DOUBLE AS place FROM {relation.sql} AS row_ "
            f"WHERE {subject} IS NOT NULL AND {key} IS NOT NULL"
        )
        run_sql(
            self._connection,
            f"CREATE TABLE {self._stays} AS SELECT subject_id, stay, "  # noqa: S608
            f"{anchored(subjects.anchor, self._end)} AS anchor FROM ({rows})",
            place=relation.name,
        )
        self._check_stays(relation, subjects.anchor)
        ((nobody,),) = run_sql(
            self._connection,
            f"SELECT count(*) FROM {relation.sql} AS row_ "  # noqa: S608
            f"WHERE {subject} IS NULL OR {key} IS NULL",
            place=relation.name,
        )
        self._add(Exclusion.NO_SUBJECT, nobody)

    def _check_stays(self, relation: Relation, anchor: Anchor | None) -> None:
        ((stays, keys, subjects),) = run_sql(
            self._connection,
            "SELECT count(*), count(DISTINCT stay), count(DISTINCT subject_id) "  # noqa: S608
            f"FROM {self._stays}",
            place=relation.name,
        )
        key = self._mapping.subjects.key or self._mapping.subjects.subject
        if stays > keys:
            raise refuse_file(
                f"{relation.name}, column {key!r}: one key has two patients or two anchors",
                expected="each key once",
                arrived=f"{stays - keys} more row(s)",
                todo="declare the stay's column as `key`, or correct the table",
            )
        if stays > subjects and anchor is not None and anchor.date and not anchor.stay_order:
            raise refuse_file(
                f"{relation.name}: patients with several stays, all on the declared date",
                expected="`stay_order` under [source.subjects.anchor], to put them in turn",
                arrived="none",
                todo="declare the column that orders a patient's stays",
            )

    def _write_facts(self) -> None:
        subjects = self._mapping.subjects
        relation = self._relation(subjects.file)
        for source, code in ((subjects.birth, BIRTH), (subjects.death, DEATH)):
            if source is not None:
                cell = relation.cell(source.column)
                time = relation.time(source, anchor="stay_.anchor")
                self._insert_fact(relation, cell, code=sql_text(code), time=time)
        if subjects.age is not None:
            cell = relation.cell(subjects.age.column)
            values = {text: str(age) for text, age in subjects.age.values.items()}
            years = number(chosen(cell, values, otherwise=cell))
            time = (
                f"(CASE WHEN {years} BETWEEN 0 AND {_AGE_MAX} THEN date_trunc('day', stay_.anchor)"
                f" - to_years(TRY_CAST(floor({years}) AS INTEGER)) END)"
            )
            first = (
                f"stay_.anchor IS NOT DISTINCT FROM (SELECT min(anchor) FROM {self._stays} AS "  # noqa: S608
                "other WHERE other.subject_id = stay_.subject_id)"
            )
            self._insert_fact(relation, cell, code=sql_text(BIRTH), time=time, where=first)
        if subjects.sex is not None:
            cell = relation.cell(subjects.sex.column)
            text = chosen(cell, dict(subjects.sex.values), otherwise="NULL::VARCHAR")
            code = f"CASE WHEN {text} IS NOT NULL THEN {sql_text(SEX)} END"
            # A cell is one patient's: what is listed as unmapped is the column.
            column = sql_text(subjects.sex.column)
            self._insert_fact(relation, cell, code=code, text=text, site_code=column)

    def _insert_fact(
        self,
        relation: Relation,
        cell: str,
        *,
        code: str,
        time: str | None = None,
        text: str = "NULL::VARCHAR",
        site_code: str = "'fact'",
        where: str = "true",
    ) -> None:
        subjects = self._mapping.subjects
        key = relation.cell(subjects.key or subjects.subject)
        self._insert(
            relation,
            f"JOIN {self._stays} AS stay_ ON stay_.stay = {key} "
            f"WHERE {cell} IS NOT NULL AND {where}",
            key=key,
            time=time,
            code=code,
            site_code=site_code,
            text=text,
            is_once=True,
        )

    def _write_entry(self, index: int, entry: EventEntry) -> None:
        relation = self._relation(entry.file)
        key = relation.cell(entry.subject)
        rest = f"LEFT JOIN {self._stays} AS stay_ ON stay_.stay = {key}"
        site_code = "''"
        if isinstance(entry.code, CodeColumn):
            codes = self._write_codes(index, entry.code)
            site_code = relation.cell(entry.code.column)
            rest += f" LEFT JOIN {codes} AS mapped_ ON mapped_.site_code = {site_code}"
            code = f"coalesce(mapped_.code, {own_code(entry.code, site_code)})"
        else:
            _check_constant(index, entry.code)
            code = sql_text(entry.code)
        needed = " AND ".join(f"{relation.cell(item)} IS NOT NULL" for item in entry.needs)
        text = "NULL::VARCHAR"
        if entry.text is not None:
            cell = relation.cell(entry.text.column)
            text = chosen(cell, entry.text.values, otherwise=cell)
        self._insert(
            relation,
            f"{rest} WHERE {needed or 'true'}",
            key=key,
            time=relation.time(entry.time, anchor="stay_.anchor") if entry.time else None,
            code=code,
            site_code=site_code,
            value=relation.cell(entry.value) if entry.value else "NULL::VARCHAR",
            unit=unit_of(relation, entry),
            text=text,
        )

    def _write_codes(self, index: int, column: CodeColumn) -> str:
        files = {name: self._folder / name for name in column.map_files}
        place = f"[source.events] {index + 1}, code.values"
        merged = merge_code_maps(column.values, files, place=place)
        pairs = [(code, target) for code, targets in merged.items() for target in targets]
        name = sql_name(f"{self._table}_codes_{index}")
        run_sql(
            self._connection,
            f"CREATE TABLE {name} (site_code VARCHAR, code VARCHAR)",
            place=place,
        )
        run_sql(
            self._connection,
            f"INSERT INTO {name} SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
            place=place,
            parameters=[[pair[0] for pair in pairs], [pair[1] for pair in pairs]],
        )
        return name

    def _insert(
        self,
        relation: Relation,
        rest: str,
        *,
        key: str,
        time: str | None,
        code: str,
        site_code: str,
        value: str = "NULL::VARCHAR",
        unit: str = "NULL::VARCHAR",
        text: str = "NULL::VARCHAR",
        is_once: bool = False,
    ) -> None:
        late = f"time < TIMESTAMP '{YEAR_MIN}-01-01' OR time >= {self._end}"
        reasons = [
            ("subject_id IS NULL", Exclusion.NO_SUBJECT),
            ("site_code IS NULL", Exclusion.NO_CODE),
            ("code IS NULL", Exclusion.UNMAPPED),
            (f"{time is not None} AND time IS NULL", Exclusion.TIME_UNREADABLE),
            (late, Exclusion.TIME_IMPOSSIBLE),
        ]
        cases = " ".join(f"WHEN {test} THEN {_REASONS.index(why)}" for test, why in reasons)
        run_sql(
            self._connection,
            f"""
            INSERT INTO {self._records}
            SELECT {"DISTINCT" if is_once else ""} subject_id, time, code, {number("value")},
                unit, text_value, CASE {cases} END,
                value IS NOT NULL AND {number("value")} IS NULL,
                CASE WHEN code IS NULL THEN site_code END, CASE WHEN code IS NULL THEN person END
            FROM (
                SELECT stay_.subject_id, {time or "NULL::TIMESTAMP"} AS time, {code} AS code,
                    {value} AS value, {unit} AS unit, {text} AS text_value,
                    {site_code} AS site_code, {key} AS person
                FROM {relation.sql} AS row_ {rest})""",  # noqa: S608
            place=relation.name,
        )

    def _count_excluded(self) -> None:
        rows = run_sql(
            self._connection,
            "SELECT reason, count(*), count(*) FILTER (is_value_lost) "  # noqa: S608
            f"FROM {self._records} GROUP BY reason",
            place=self._table,
        )
        for reason, records, lost in rows:
            if reason is None:
                self._add(Exclusion.VALUE_UNREADABLE, lost)
            else:
                self._add(_REASONS[reason], records)
        codes = run_sql(
            self._connection,
            f"SELECT CASE WHEN persons >= {UNMAPPED_PATIENTS_MIN} AND place <= "  # noqa: S608
            f"{UNMAPPED_LISTED_MAX} THEN site_code ELSE '{OTHER_CODES}' END AS listed, sum(records)"
            " FROM (SELECT *, row_number() OVER (ORDER BY records DESC, site_code) AS place "
            "FROM (SELECT site_code, count(*) AS records, count(DISTINCT person) AS persons "
            f"FROM {self._records} WHERE reason = {_REASONS.index(Exclusion.UNMAPPED)} "
            "GROUP BY site_code)) GROUP BY listed ORDER BY 2 DESC, 1",
            place=self._table,
        )
        self._counts.unmapped = {code: int(records) for code, records in codes}

    def _write_view(self) -> None:
        kind, which = ("TABLE", "DISTINCT") if self._mapping.drop_duplicates else ("VIEW", "")
        name = sql_name(self._table)
        run_sql(
            self._connection,
            f"CREATE {kind} {name} AS SELECT {which} subject_id, time, code, numeric_value, unit, "  # noqa: S608
            f"text_value FROM {self._records} WHERE reason IS NULL",
            place=self._table,
        )
        ((removed,),) = run_sql(
            self._connection,
            f"SELECT (SELECT count(*) FROM {self._records} WHERE reason IS NULL) - "  # noqa: S608
            f"(SELECT count(*) FROM {name})",
            place=self._table,
        )
        self._add(Exclusion.DUPLICATE, removed)

    def _add(self, reason: Exclusion, count: int) -> None:
        if count:
            self._counts.excluded[reason] = self._counts.excluded.get(reason, 0) + count


def _check_constant(index: int, code: str) -> None:
    if not is_standard_code(code) or code == SEX:
        raise refuse_file(
            f"[source.events] {index + 1}, code: refused",
            expected="vocabulary/code, such as LOINC/2160-0, and not sex, which has its own entry",
            arrived="something else",
            todo="correct site.toml",
        )
