"""A site's OMOP tables in PostgreSQL or DuckDB give what they give as files; no secret is told."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql

from common.errors import DataSourceError
from site_client.sources.events import EventSource, Exclusion, SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop_duckdb import OmopDuckDB
from site_client.sources.omop_postgresql import OmopPostgres
from tests.lib.postgresql import PASSWORD, postgresql_server
from tests.lib.six_patients import Event, events_in, expected
from tests.lib.six_patients_omop import Row, six_patients_tables, write_duckdb

MARKER = "Xq7Zsecret"


def _type(column: str) -> str:
    if column.endswith("datetime"):
        return "timestamp"
    if column.endswith("_date"):
        return "date"
    if column == "value_as_number":
        return "numeric"
    is_id = column.endswith(("_id", "_of_birth")) or "concept_id" in column
    return "bigint" if is_id and column not in TEXTS else "text"


TEXTS = ("vocabulary_id", "domain_id", "concept_class_id", "relationship_id")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture
def schema(server: str) -> str:
    """A schema with the six patients, its own for each test."""
    name = f'CDM "{secrets.token_hex(4)}"'
    with psycopg.connect(server) as session:
        session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        for table, rows in six_patients_tables().items():
            columns = list(rows[0])
            session.execute(
                sql.SQL("CREATE TABLE {} ({})").format(
                    sql.Identifier(name, table),
                    sql.SQL(", ").join(
                        sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(_type(c)))
                        for c in columns
                    ),
                )
            )
            _insert(session, name, table, rows)
    return name


def _insert(session: psycopg.Connection, schema: str, table: str, rows: list[Row]) -> None:
    statement = sql.SQL("INSERT INTO {} VALUES ({})").format(
        sql.Identifier(schema, table),
        sql.SQL(", ").join([sql.Placeholder()] * len(rows[0])),
    )
    session.cursor().executemany(statement, [list(row.values()) for row in rows])


def _run(server: str, schema: str, statement: str) -> None:
    with psycopg.connect(server) as session:
        session.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        session.execute(statement)


def read(source: EventSource, scratch: Path) -> tuple[list[Event], SourceCounts]:
    scratch.mkdir(exist_ok=True)
    with open_local(scratch=scratch) as connection:
        counts = source.write_events(connection, "events", scratch=scratch)
        return events_in(connection, "events"), counts


def refused(source: EventSource, scratch: Path) -> DataSourceError:
    with pytest.raises(DataSourceError) as caught:
        read(source, scratch)
    error = caught.value
    said = str(error) + repr(error) + repr(error.__cause__) + repr(error.__context__)
    assert MARKER not in said
    assert PASSWORD not in said
    return error


def test_the_six_patients_come_out_of_postgresql_as_they_are(
    server: str, schema: str, tmp_path: Path
) -> None:
    events, counts = read(OmopPostgres(server, schema=schema), tmp_path)
    assert events == expected()
    assert (counts.excluded, counts.unmapped) == ({}, {})
    assert [path.name[:7] for path in tmp_path.iterdir()] == ["events_"]


def test_a_view_in_postgresql_is_a_table_and_narrower_codes_are_known(
    server: str, schema: str, tmp_path: Path
) -> None:
    _run(server, schema, "ALTER TABLE death RENAME TO dead")
    _run(server, schema, "CREATE VIEW death AS SELECT * FROM dead")
    source = OmopPostgres(server, schema=schema)
    assert read(source, tmp_path)[0] == expected()
    assert source.descendants(frozenset({"SNOMED/22298006"})) == {
        "SNOMED/22298006": {"SNOMED/22298006", "SNOMED/57054005"}
    }


def test_a_postgresql_time_with_a_zone_needs_the_zone_of_the_site(
    server: str, schema: str, tmp_path: Path
) -> None:
    _run(server, schema, "ALTER TABLE death ALTER death_datetime TYPE timestamptz")
    _run(server, schema, "UPDATE death SET death_datetime = '2021-02-20 23:30:00 Europe/London'")
    london = ZoneInfo("Europe/London")
    events, _ = read(OmopPostgres(server, schema=schema, time_zone=london), tmp_path)
    assert events == expected()


def test_a_time_after_the_database_clock_is_impossible(
    server: str, schema: str, tmp_path: Path
) -> None:
    _run(server, schema, "UPDATE death SET death_datetime = '2999-01-01'")
    _, counts = read(OmopPostgres(server, schema=schema), tmp_path)
    assert counts.excluded == {Exclusion.TIME_IMPOSSIBLE: 1}
    until = date(3000, 1, 1)
    _, counts = read(OmopPostgres(server, schema=schema, data_until=until), tmp_path)
    assert counts.excluded == {}


def test_the_fingerprint_follows_the_columns_that_are_read(server: str, schema: str) -> None:
    source = OmopPostgres(server, schema=schema)
    before = source.fingerprint()
    _run(server, schema, "UPDATE person SET year_of_birth = year_of_birth")
    _run(server, schema, "ALTER TABLE person ADD COLUMN note text DEFAULT 'not read'")
    assert source.fingerprint() == before
    _run(server, schema, "UPDATE measurement SET value_as_number = 1 WHERE person_id = 101")
    assert source.fingerprint() != before


def test_postgresql_is_never_written_to(server: str, schema: str, tmp_path: Path) -> None:
    _run(
        server,
        schema,
        "CREATE FUNCTION leave_a_mark() RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT "
        "AS $$ INSERT INTO death (person_id) VALUES (1) RETURNING 1::bigint $$",
    )
    _run(server, schema, "DROP TABLE observation")
    _run(server, schema, "CREATE VIEW observation AS SELECT leave_a_mark() AS person_id")
    assert "SQLSTATE 25006" in str(refused(OmopPostgres(server, schema=schema), tmp_path))


def test_what_is_wrong_with_postgresql_is_said_without_a_secret_or_a_row(
    server: str, schema: str, tmp_path: Path
) -> None:
    wrong = server.replace(PASSWORD, MARKER)
    refused(OmopPostgres(wrong, schema=schema), tmp_path)
    refused(OmopPostgres(f"postgresql://reader:{MARKER}@[/", schema=schema), tmp_path)
    refused(OmopPostgres(server.replace("host=", f"host=/{MARKER}"), schema=schema), tmp_path)
    assert "no table person" in str(refused(OmopPostgres(server, schema="none"), tmp_path))
    _run(server, schema, "ALTER TABLE person RENAME gender_concept_id TO sex")
    error = refused(OmopPostgres(server, schema=schema), tmp_path)
    assert "person lacks gender_concept_id" in error.refused
    _run(server, schema, "ALTER TABLE death RENAME TO dead")
    cast = f"CREATE VIEW death AS SELECT person_id, ('{MARKER}' || person_id)::date AS death_date"
    _run(server, schema, f"{cast} FROM dead")
    assert "SQLSTATE 22007" in str(refused(OmopPostgres(server, schema=schema), tmp_path))


def test_the_six_patients_come_out_of_a_duckdb_file_as_they_are(tmp_path: Path) -> None:
    source = OmopDuckDB(write_duckdb(tmp_path, six_patients_tables()))
    before = source.fingerprint()
    events, counts = read(source, tmp_path / "scratch")
    assert events == expected()
    assert (counts.excluded, counts.unmapped) == ({}, {})
    assert source.descendants(frozenset({"SNOMED/22298006", "LOINC/none"})) == {
        "SNOMED/22298006": {"SNOMED/22298006", "SNOMED/57054005"},
        "LOINC/none": {"LOINC/none"},
    }
    assert source.fingerprint() == before


def test_what_is_wrong_with_a_duckdb_file_is_said_without_a_row(tmp_path: Path) -> None:
    tables = six_patients_tables()
    for row in tables["death"]:
        row[MARKER] = row.pop("death_date")
    path = write_duckdb(tmp_path, tables)
    assert "lacks death_date" in refused(OmopDuckDB(path), tmp_path / "scratch").refused
    assert "no table person" in str(refused(OmopDuckDB(path, schema="none"), tmp_path / "scratch"))
    refused(OmopDuckDB(tmp_path / "none.duckdb"), tmp_path / "scratch")
    assert not (tmp_path / "none.duckdb").exists()
    path.write_bytes(MARKER.encode() * 1000)
    refused(OmopDuckDB(path), tmp_path / "scratch")
