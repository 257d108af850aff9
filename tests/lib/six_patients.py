"""Six fictional patients as the event table that every reader must give, whatever the format."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import duckdb

from site_client.sources.events import BIRTH, DEATH, EVENT_COLUMNS, EVENT_TYPES, SEX


class Event(NamedTuple):
    """One row of the event table."""

    subject_id: str
    time: datetime | None
    code: str
    numeric_value: float | None = None
    unit: str | None = None
    text_value: str | None = None


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _born(subject_id: str, day: str, sex: str) -> list[Event]:
    return [
        Event(subject_id, _at(day), BIRTH),
        Event(subject_id, None, SEX, text_value=sex),
    ]


EVENTS: tuple[Event, ...] = (
    # 101: an admission through the emergency department with repeated creatinine, then death.
    *_born("101", "1941-03-07", "female"),
    Event("101", _at("2021-02-03T08:15:00"), "Visit/IP"),
    Event("101", _at("2021-02-09T16:40:00"), "VisitEnd/IP"),
    Event("101", _at("2021-02-03T08:50:00"), "LOINC/2160-0", 88.4, "umol/L"),
    Event("101", _at("2021-02-04T06:10:00"), "LOINC/2160-0", 176.8, "umol/L"),
    Event("101", _at("2021-02-04T06:10:00"), "LOINC/2823-3", 4.25, "mmol/L"),
    Event("101", _at("2021-02-03T00:00:00"), "SNOMED/22298006"),
    Event("101", _at("2021-02-03T12:00:00"), "RxNorm/855332"),
    Event("101", _at("2021-02-20T23:30:00"), DEATH),
    # 102: outpatient, blood pressure in two components, a coded answer.
    *_born("102", "1978-11-30", "male"),
    Event("102", _at("2020-06-15T10:00:00"), "Visit/OP"),
    Event("102", _at("2020-06-15T10:20:00"), "VisitEnd/OP"),
    Event("102", _at("2020-06-15T10:05:00"), "LOINC/8480-6", 142.0, "mm[Hg]"),
    Event("102", _at("2020-06-15T10:05:00"), "LOINC/8462-4", 91.0, "mm[Hg]"),
    Event("102", _at("2020-06-15T10:06:00"), "LOINC/72166-2", text_value="SNOMED/8517006"),
    Event("102", _at("2020-06-15T00:00:00"), "SNOMED/59621000"),
    # 103: emergency only, a procedure, an immunisation.
    *_born("103", "2003-01-01", "female"),
    Event("103", _at("2022-12-24T23:59:59"), "Visit/ER"),
    Event("103", _at("2022-12-25T03:00:00"), "VisitEnd/ER"),
    Event("103", _at("2022-12-25T01:30:00"), "SNOMED/274474001"),
    Event("103", _at("2022-10-01T09:00:00"), "CVX/140"),
    # 104: born on a leap day, one value of zero and one below zero.
    *_born("104", "1960-02-29", "male"),
    Event("104", _at("2019-03-01T07:00:00"), "LOINC/11555-0", -2.5, "mmol/L"),
    Event("104", _at("2019-03-01T07:00:00"), "LOINC/26478-8", 0.0, "%"),
    # 105: nothing but demographics.
    *_born("105", "1999-07-14", "female"),
    # 106: the same test twice at one time in two units, both kept.
    *_born("106", "1955-05-05", "male"),
    Event("106", _at("2021-08-08T08:08:08"), "LOINC/2345-7", 5.5, "mmol/L"),
    Event("106", _at("2021-08-08T08:08:08"), "LOINC/2345-7", 99.0, "mg/dL"),
)
"""Times are wall clock; the patients of a FHIR writer live in Europe/London."""


def events_in(connection: duckdb.DuckDBPyConnection, table: str) -> list[Event]:
    """Return the rows of an event table, sorted; asserts its columns' names and types."""
    described = connection.sql(f'DESCRIBE SELECT * FROM "{table}"').fetchall()
    assert tuple(row[0] for row in described) == EVENT_COLUMNS
    types = tuple(row[1] for row in described)
    assert types[1:] == EVENT_TYPES[1:]
    assert types[0] in {EVENT_TYPES[0], "BIGINT"}
    rows = connection.sql(f'SELECT * FROM "{table}"').fetchall()
    return sorted((Event(str(row[0]), *row[1:]) for row in rows), key=_order)


def expected() -> list[Event]:
    """Return `EVENTS`, sorted as `events_in` sorts."""
    return sorted(EVENTS, key=_order)


def _order(event: Event) -> tuple[str, ...]:
    return tuple("" if item is None else str(item) for item in event)
