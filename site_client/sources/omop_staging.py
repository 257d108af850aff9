"""One table of the CDM, typed: text of a CSV becomes integers, numbers and times, or null.

A staged table is a Parquet file in the build's scratch folder. Reading ends here: what comes after
works on bytes that we wrote, so only this step can meet a damaged file.
"""

# Names and paths are quoted by us; SQL has no parameters where they stand.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from common.errors import DataSourceError
from site_client.sources.omop_files import Column, SourceTable
from site_client.sources.source_files import run_sql, sql_file, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

_OFFSET: Final = r":[0-9]{2}(\.[0-9]+)?\s*(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)$"


@dataclass(frozen=True)
class Clinical:
    """Where a clinical table of the CDM has what an event needs (CDM 5.3 and 5.4).

    Args:
        table: its name.
        stem: of its concept columns, `<stem>_concept_id` and `<stem>_source_concept_id`.
        date: its date column.
        events: prefix of the codes; empty: the vocabulary's name.
        optional_time: a record without this time is no event, and nothing is wrong with it.
    """

    table: str
    stem: str
    date: str
    events: str = ""
    optional_time: bool = False

    @property
    def datetime(self) -> str:
        """The column with date and time of day."""
        return self.date.replace("date", "datetime")


CLINICAL: Final = (
    Clinical("visit_occurrence", "visit", "visit_start_date", events="Visit"),
    Clinical("visit_occurrence", "visit", "visit_end_date", events="VisitEnd", optional_time=True),
    Clinical("condition_occurrence", "condition", "condition_start_date"),
    Clinical("procedure_occurrence", "procedure", "procedure_date"),
    Clinical("drug_exposure", "drug", "drug_exposure_start_date"),
    Clinical("device_exposure", "device", "device_exposure_start_date"),
    Clinical("measurement", "measurement", "measurement_date"),
    Clinical("observation", "observation", "observation_date"),
)

COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "person": frozenset(
        {
            *("person_id", "gender_concept_id", "birth_datetime"),
            *("year_of_birth", "month_of_birth", "day_of_birth"),
        }
    ),
    "death": frozenset({"person_id", "death_date", "death_datetime"}),
    **{
        what.table: frozenset(
            {
                *("person_id", f"{what.stem}_concept_id", f"{what.stem}_source_concept_id"),
                f"{what.stem}_source_value",
                *(item.date for item in CLINICAL if item.table == what.table),
                *(item.datetime for item in CLINICAL if item.table == what.table),
                *("value_as_number", "value_as_string", "value_as_concept_id"),
                *("unit_concept_id", "unit_source_value"),
            }
        )
        for what in CLINICAL
    },
    "concept": frozenset({"concept_id", "vocabulary_id", "concept_code", "standard_concept"}),
    "concept_relationship": frozenset(
        {"concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"}
    ),
    "concept_ancestor": frozenset({"ancestor_concept_id", "descendant_concept_id"}),
}
"""The tables that are read, and their columns; nothing else of a source is."""

STAGED: Final = "the OMOP tables"
"""For messages of the steps that read what is staged."""


class Staging:
    """Writes typed copies of tables into a scratch folder.

    Args:
        connection: DuckDB.
        scratch: the folder.
        time_zone: whose wall clock a time with an offset is put on; None: such times are not read.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, *, scratch: Path, time_zone: ZoneInfo | None
    ) -> None:
        self._connection = connection
        self._scratch = scratch
        self._zone = time_zone

    def person(self, table: SourceTable) -> str:
        """Stage `person_id, gender_concept_id, time` of birth; return SQL to stand after FROM."""
        table.require("person_id", "gender_concept_id", "year_of_birth")
        part = {
            name: integer(table.columns.get(f"{name}_of_birth"))
            for name in ("year", "month", "day")
        }
        year, month, day = (
            part["year"],
            f"coalesce({part['month']}, 1)",
            f"coalesce({part['day']}, 1)",
        )
        assembled = (
            f"CASE WHEN {year} BETWEEN 1000 AND 9999 AND {month} BETWEEN 1 AND 12 "
            f"AND {day} BETWEEN 1 AND 31 "
            f"THEN TRY_CAST({year} || '-' || {month} || '-' || {day} AS TIMESTAMP) END"
        )
        return self._write(
            table,
            "person",
            {
                "person_id": integer(table.columns["person_id"]),
                "gender_concept_id": integer(table.columns["gender_concept_id"]),
                "time": f"coalesce({self._moment(table, 'birth_datetime')}, {assembled})",
            },
        )

    def death(self, table: SourceTable) -> str:
        """Stage `person_id, time`; return SQL to stand after FROM."""
        table.require("person_id", "death_date")
        time = self._moment(table, "death_datetime", "death_date")
        return self._write(
            table, "death", {"person_id": integer(table.columns["person_id"]), "time": time}
        )

    def clinical(self, table: SourceTable, what: Clinical) -> str:
        """Stage one clinical table.

        Columns: person_id, concept_id, source_concept_id, has_source_value, time, number,
        has_number, unit_concept_id, unit_source_value, value_concept_id, value_text.
        """
        concept = f"{what.stem}_concept_id"
        date, moment = what.date, what.datetime
        table.require("person_id", concept, *(() if what.optional_time else (date,)))
        column = table.columns.get
        rows = ""
        if what.optional_time:
            rows = f"WHERE coalesce({text(column(moment))}, {text(column(date))}) IS NOT NULL"
        return self._write(
            table,
            f"{what.table}_{what.date}",
            {
                "person_id": integer(table.columns["person_id"]),
                "concept_id": integer(table.columns[concept]),
                "source_concept_id": integer(column(f"{what.stem}_source_concept_id")),
                "has_source_value": f"{text(column(f'{what.stem}_source_value'))} IS NOT NULL",
                "time": self._moment(table, moment, date),
                "number": number(column("value_as_number")),
                "has_number": f"{text(column('value_as_number'))} IS NOT NULL",
                "unit_concept_id": integer(column("unit_concept_id")),
                "unit_source_value": text(column("unit_source_value")),
                "value_concept_id": integer(column("value_as_concept_id")),
                "value_text": text(column("value_as_string")),
            },
            rows,
        )

    def concept(self, table: SourceTable) -> str:
        """Stage `id, vocabulary, code, is_standard` of the concept table."""
        table.require("concept_id", "vocabulary_id", "concept_code", "standard_concept")
        column = table.columns
        return self._write(
            table,
            "concept",
            {
                "id": integer(column["concept_id"]),
                "vocabulary": text(column["vocabulary_id"]),
                "code": text(column["concept_code"]),
                "is_standard": f"coalesce({text(column['standard_concept'])} = 'S', false)",
            },
        )

    def maps_to(self, table: SourceTable) -> str:
        """Stage `source, target` of the valid 'Maps to' rows between two concepts."""
        table.require("concept_id_1", "concept_id_2", "relationship_id")
        column = table.columns
        relationship = text(column["relationship_id"])
        return self._write(
            table,
            "maps_to",
            {
                "source": integer(column["concept_id_1"]),
                "target": integer(column["concept_id_2"]),
            },
            f"WHERE {relationship} = 'Maps to' AND {text(column.get('invalid_reason'))} IS NULL",
        )

    def ancestor(self, table: SourceTable) -> str:
        """Stage `ancestor, descendant`."""
        table.require("ancestor_concept_id", "descendant_concept_id")
        column = table.columns
        return self._write(
            table,
            "ancestor",
            {
                "ancestor": integer(column["ancestor_concept_id"]),
                "descendant": integer(column["descendant_concept_id"]),
            },
        )

    def _moment(self, table: SourceTable, *names: str) -> str:
        columns = [table.columns[name] for name in names if name in table.columns]
        for column in columns:
            if "TIME ZONE" in column.type and self._zone is None:
                raise DataSourceError(
                    f"{table.place}: {column.name} is a time with a zone",
                    expected="wall clock time, or `time_zone` of this site",
                    arrived=column.type,
                    todo="set `time_zone` under [source], or export the times without a zone",
                )
        times = [moment(column, self._zone) for column in columns]
        return f"coalesce({', '.join([*times, 'NULL::TIMESTAMP'])})"

    def _write(
        self, table: SourceTable, name: str, columns: Mapping[str, str], rows: str = ""
    ) -> str:
        path = self._scratch / f"staged_{name}.parquet"
        selected = ", ".join(f'{sql} AS "{column}"' for column, sql in columns.items())
        run_sql(
            self._connection,
            f"COPY (SELECT {selected} FROM {table.relation} {rows}) "
            f"TO {sql_text(str(path))} (FORMAT parquet)",
            place=table.place,
        )
        return f"read_parquet({sql_file(path)})"


def integer(column: Column | None) -> str:
    """Return SQL for a whole number: `8507`, and `8507.0` as some exports write it; else null."""
    if column is None:
        return "NULL::BIGINT"
    sql = _quoted(column)
    if column.type == "VARCHAR":
        return (
            f"CASE WHEN regexp_full_match(trim({sql}), '[-+]?[0-9]+') "
            f"THEN TRY_CAST(trim({sql}) AS BIGINT) "
            f"WHEN regexp_full_match(trim({sql}), '[-+]?[0-9]+\\.0*') "
            f"THEN TRY_CAST(split_part(trim({sql}), '.', 1) AS BIGINT) END"
        )
    return f"CASE WHEN TRY_CAST({sql} AS BIGINT) = {sql} THEN TRY_CAST({sql} AS BIGINT) END"


def number(column: Column | None) -> str:
    """Return SQL for a number, which may be infinite; null where there is none."""
    if column is None:
        return "NULL::DOUBLE"
    sql = _quoted(column)
    if column.type == "VARCHAR":  # DuckDB takes 1_000 for a number
        return f"CASE WHEN NOT contains({sql}, '_') THEN TRY_CAST(trim({sql}) AS DOUBLE) END"
    return f"TRY_CAST({sql} AS DOUBLE)"


def text(column: Column | None) -> str:
    """Return SQL for a text without outer blanks; null where it is empty."""
    if column is None:
        return "NULL::VARCHAR"
    return f"nullif(trim(CAST({_quoted(column)} AS VARCHAR)), '')"


def moment(column: Column, zone: ZoneInfo | None) -> str:
    """Return SQL for a wall clock time; a time with an offset is put on the zone's clock, or null.

    A text is read in ISO 8601's order, with or without separators; no other order is guessed.
    """
    sql = _quoted(column)
    if column.type == "VARCHAR":
        trimmed = f"trim({sql})"
        local = (
            f"timezone({sql_text(zone.key)}, TRY_CAST({trimmed} AS TIMESTAMPTZ))"
            if zone
            else "NULL"
        )
        return (
            f"CASE WHEN length({sql}) > 16 AND regexp_matches({trimmed}, {sql_text(_OFFSET)}) "
            f"THEN {local} "
            f"WHEN regexp_full_match({trimmed}, '[0-9]{{8}}') "
            f"THEN CAST(try_strptime({trimmed}, '%Y%m%d') AS TIMESTAMP) "
            f"WHEN regexp_matches({trimmed}, '^[0-9]{{4}}[-/]') "
            f"THEN TRY_CAST({trimmed} AS TIMESTAMP) END"
        )
    if "TIME ZONE" in column.type and zone:
        return f"timezone({sql_text(zone.key)}, {sql})"
    return f"TRY_CAST({sql} AS TIMESTAMP)"


def _quoted(column: Column) -> str:
    return sql_name(column.name)
