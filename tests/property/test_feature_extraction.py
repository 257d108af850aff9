"""Features agree with a slow reference on generated events; nothing sees past its index date."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InternalError
from common.units.conversions import Conversion
from site_client.features import staged_events
from site_client.features.definitions import (
    Aggregate,
    CategoricalVariable,
    Criterion,
    IndexEvent,
    NumericVariable,
    Outcome,
    Variable,
    Window,
)
from site_client.features.extraction import extract, extract_bins
from site_client.features.forward_fill import forward_filled
from site_client.features.index_dates import make_index_rows
from site_client.sources.events import BIRTH, DEATH
from site_client.sources.local_database import open_local
from tests.lib.six_patients import EVENTS, Event

ENTRY, TEST, OTHER, WORDS = "Visit/IP", "LOINC/2160-0", "LOINC/2823-3", "LOINC/46098-0"
START = datetime(2020, 1, 1)  # noqa: DTZ001 - the event table has no zones
HOUR = timedelta(hours=1)
CONVERSIONS = {
    "umol/L": Conversion(1.0, 0.0),
    "mg/dL": Conversion(88.42, 0.0),
    "": Conversion(1.0, 5.0),
}
PLAUSIBLE = (0.0, 500.0)
WINDOWS = (Window(9 * HOUR), Window(10 * HOUR, 6 * HOUR), Window(3000 * HOUR))

# Few patients, hours and values, so that events coincide with each other and with windows' ends.
times = st.integers(0, 24).map(lambda hours: START + hours * HOUR)
subjects = st.sampled_from(["1", "2"])
entries = st.lists(st.builds(Event, subjects, times, st.just(ENTRY)), min_size=1, max_size=4)
deaths = st.lists(st.builds(Event, subjects, times, st.just(DEATH)), max_size=1)
recorded = st.lists(
    st.builds(
        Event,
        subject_id=subjects,
        time=st.one_of(times, times, times, times, st.none()),
        code=st.sampled_from([TEST, TEST, OTHER, WORDS, BIRTH]),
        numeric_value=st.sampled_from([None, -1.0, 0.0, 1.5, 2.0, 80.0, 90.0, 501.0]),
        unit=st.sampled_from([None, "", "umol/L", "umol/L", "mg/dL", "mmol/L"]),
        text_value=st.sampled_from([None, "female", "male", "unheard of"]),
    ),
    min_size=15,
    max_size=40,
)
events = st.tuples(entries, deaths, recorded).map(lambda parts: [*parts[0], *parts[1], *parts[2]])
VARIABLES: tuple[Variable, ...] = (
    *(
        NumericVariable(frozenset({TEST, OTHER}), CONVERSIONS, PLAUSIBLE, aggregate, window)
        for aggregate in Aggregate
        for window in WINDOWS
    ),
    NumericVariable(frozenset({TEST}), None, PLAUSIBLE, Aggregate.COUNT, WINDOWS[0]),
    CategoricalVariable(frozenset({WORDS}), {"female": 0, "male": 1}, WINDOWS[1]),
)
BINNED = (Aggregate.LAST, Aggregate.MEAN, Aggregate.COUNT, Aggregate.MEDIAN)
INDEX = IndexEvent(frozenset({ENTRY}), "every", delay=6 * HOUR, rows_max=3)
OUTCOME = Outcome(frozenset({DEATH}), horizon=8 * HOUR)
FAST = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    folder: Path = tmp_path_factory.mktemp("scratch")
    return open_local(scratch=folder, threads_max=1)


def put_events(database: duckdb.DuckDBPyConnection, rows: Sequence[Event]) -> None:
    types = (pa.string(), pa.timestamp("us"), pa.string(), pa.float64(), pa.string(), pa.string())
    columns = {
        name: pa.array([row[place] for row in rows], kind)
        for place, (name, kind) in enumerate(zip(Event._fields, types, strict=True))
    }
    database.register("given_events", pa.table(columns))
    database.execute("CREATE OR REPLACE TABLE events AS FROM given_events")


def rows_of(database: duckdb.DuckDBPyConnection) -> list[tuple[str, datetime, bool]]:
    return database.execute(
        "SELECT subject_id, index_time, label FROM index_rows ORDER BY row_id"
    ).fetchall()


def slow_rows(rows: Sequence[Event], index: IndexEvent = INDEX) -> list[tuple[str, datetime, bool]]:
    found = []
    for subject in sorted({row.subject_id for row in rows}):
        own = [row for row in rows if row.subject_id == subject]
        deaths = [row.time for row in own if row.code == DEATH and row.time is not None]
        starts = sorted(
            {row.time + index.delay for row in own if row.code in index.codes and row.time}
        )
        living = [time for time in starts if not deaths or time < min(deaths)]
        for time in living[: index.rows_max]:
            found.append((subject, time, any(time < d <= time + OUTCOME.horizon for d in deaths)))
    return found


def slow_value(rows: Sequence[Event], variable: Variable, subject: str, index: datetime) -> float:
    low, high = index - variable.window.begins, index - variable.window.ends
    own = [row for row in rows if row.subject_id == subject and row.code in variable.codes]
    if isinstance(variable, CategoricalVariable):
        known = [
            (row.time or datetime.min, variable.levels[row.text_value])  # noqa: DTZ901
            for row in own
            if row.text_value in variable.levels and (row.time is None or low < row.time <= high)
        ]
        return float(max(known)[1]) if known else math.nan
    inside = [row for row in own if row.time is not None and low < row.time <= high]
    if variable.conversions is None:
        return float(len(inside))
    pairs = []
    for row in inside:
        conversion = variable.conversions.get(row.unit or "")
        if row.numeric_value is None or conversion is None or row.time is None:
            continue
        value = row.numeric_value * conversion.factor + conversion.offset
        if variable.plausible[0] <= value <= variable.plausible[1]:
            pairs.append((row.time, value))
    return slow_aggregate(pairs, variable.aggregate, index)


def slow_aggregate(
    pairs: list[tuple[datetime, float]], aggregate: Aggregate, index: datetime
) -> float:
    values = [value for _, value in pairs]
    if aggregate in {Aggregate.COUNT, Aggregate.ANY}:
        return float(len(values) if aggregate is Aggregate.COUNT else bool(values))
    if not values:
        return math.nan
    days = np.array([(time - index) / timedelta(days=1) for time, _ in pairs])
    if aggregate is Aggregate.SLOPE:
        if len(set(days)) < 2:
            return math.nan
        return float(np.polyfit(days, values, 1)[0])
    first = min(time for time, _ in pairs)
    return {
        Aggregate.LAST: max(pairs)[1],
        Aggregate.FIRST: max(value for time, value in pairs if time == first),
        Aggregate.MIN: min(values),
        Aggregate.MAX: max(values),
        Aggregate.MEAN: statistics.fmean(values),
        Aggregate.MEDIAN: statistics.median(values),
        Aggregate.TIME_SINCE: -float(days.max()),
    }[aggregate]


@FAST
@given(rows=events)
def test_index_rows_and_every_variable_agree_with_a_slow_reference(
    database: duckdb.DuckDBPyConnection, rows: list[Event]
) -> None:
    put_events(database, rows)
    make_index_rows(database, index=INDEX, criteria=[], outcome=OUTCOME)
    found = rows_of(database)
    assert found == slow_rows(rows)
    values = extract(database, VARIABLES).values
    for row, (subject, time, _) in enumerate(found):
        expected = [slow_value(rows, variable, subject, time) for variable in VARIABLES]
        np.testing.assert_allclose(values[row], expected, rtol=1e-9, atol=1e-9)


@FAST
@given(rows=events)
def test_a_bin_is_the_variable_in_that_part_of_its_window(
    database: duckdb.DuckDBPyConnection, rows: list[Event]
) -> None:
    put_events(database, rows)
    make_index_rows(database, index=INDEX, criteria=[], outcome=OUTCOME)
    whole = Window(14 * HOUR, 2 * HOUR)
    parts = [Window((14 - 3 * part) * HOUR, (11 - 3 * part) * HOUR) for part in range(4)]

    def asked(window: Window) -> list[Variable]:
        codes = frozenset({TEST, OTHER})
        return [NumericVariable(codes, CONVERSIONS, PLAUSIBLE, kind, window) for kind in BINNED]

    binned = extract_bins(database, asked(whole), bins=4).values
    for part, window in enumerate(parts):
        np.testing.assert_allclose(binned[:, part], extract(database, asked(window)).values)


def test_a_bin_without_a_value_has_the_last_one_before_it() -> None:
    nan = math.nan
    values = np.array([[[nan, 1.0], [2.0, nan], [nan, nan], [3.0, 4.0]]])
    expected = np.array([[[nan, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 4.0]]])
    np.testing.assert_array_equal(forward_filled(values), expected)


@FAST
@given(rows=events, later=events)
def test_no_event_after_the_index_date_changes_a_feature(
    database: duckdb.DuckDBPyConnection, rows: list[Event], later: list[Event]
) -> None:
    index = IndexEvent(frozenset({ENTRY}), "first", rows_max=1)
    put_events(database, rows)
    make_index_rows(database, index=index, criteria=[], outcome=OUTCOME)
    before, values = rows_of(database), extract(database, VARIABLES).values
    dates = {subject: time for subject, time, _ in before}
    # Whatever happens after a patient's index date, also another entry, and also a death.
    future = [
        row
        for row in later
        if row.subject_id in dates and row.time is not None and row.time > dates[row.subject_id]
    ]
    put_events(database, [*rows, *future])
    make_index_rows(database, index=index, criteria=[], outcome=OUTCOME)
    assert [row[:2] for row in rows_of(database)] == [row[:2] for row in before]
    np.testing.assert_array_equal(extract(database, VARIABLES).values, values)


def test_ages_are_asked_before_the_occurrence_of_each_patient(
    database: duckdb.DuckDBPyConnection,
) -> None:
    born = START - timedelta(days=20 * 365.25)
    visits = [Event("1", START - timedelta(days=3650), ENTRY), Event("1", START, ENTRY)]
    put_events(database, [Event("1", born, BIRTH), *visits, Event("2", START, ENTRY)])
    index = IndexEvent(frozenset({ENTRY}), "first", ages=(18, 100))
    steps = make_index_rows(database, index=index, criteria=[], outcome=OUTCOME)
    # The first visit was as a child; the second patient has no birth.
    assert [row[:2] for row in rows_of(database)] == [("1", START)]
    assert [(item.rows, item.patients) for item in steps[:3]] == [(3, 2), (3, 2), (1, 1)]


@FAST
@given(rows=events, order=st.randoms(use_true_random=False))
def test_the_order_of_events_changes_nothing(
    database: duckdb.DuckDBPyConnection, rows: list[Event], order: object
) -> None:
    results = []
    for shuffled in (rows, order.sample(rows, len(rows))):  # type: ignore[attr-defined]
        put_events(database, shuffled)
        make_index_rows(database, index=INDEX, criteria=[], outcome=OUTCOME)
        results.append((rows_of(database), extract(database, VARIABLES).values))
    assert results[0][0] == results[1][0]
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12, atol=1e-9)


decimals = st.floats(0.0, 500.0, allow_nan=False)
many_values = st.lists(st.tuples(times, decimals), min_size=2, max_size=40)


@FAST
@given(own=many_values, others=st.lists(st.tuples(st.sampled_from(["0", "2"]), many_values)))
def test_a_patients_values_are_the_same_bits_whoever_else_is_there(
    database: duckdb.DuckDBPyConnection,
    own: list[tuple[datetime, float]],
    others: list[tuple[str, list[tuple[datetime, float]]]],
) -> None:
    def found(*people: tuple[str, list[tuple[datetime, float]]]) -> bytes:
        rows = [
            Event(subject, time, TEST, value, "mg/dL")
            for subject, values in people
            for time, value in values
        ]
        starts = [Event(subject, START + 20 * HOUR, ENTRY) for subject, _ in people]
        put_events(database, [*rows, *starts])
        index = IndexEvent(frozenset({ENTRY}))
        make_index_rows(database, index=index, criteria=[], outcome=OUTCOME)
        subjects = [subject for subject, *_ in rows_of(database)]
        return extract(database, VARIABLES).values[subjects.index("1")].tobytes()

    alone = found(("1", own))
    assert found(*others, ("1", own)) == alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staged_events, "_PATIENTS_PER_PART_MAX", 1)
        assert found(*others, ("1", own)) == alone


@FAST
@given(rows=events)
def test_some_rows_alone_have_the_values_that_they_have_among_all(
    database: duckdb.DuckDBPyConnection, rows: list[Event]
) -> None:
    put_events(database, rows)
    make_index_rows(database, index=INDEX, criteria=[], outcome=OUTCOME)
    subjects = [subject for subject, *_ in rows_of(database)]
    everybody = extract(database, VARIABLES).values
    database.execute(
        "CREATE OR REPLACE TABLE index_rows AS SELECT * REPLACE "
        "(row_number() OVER (ORDER BY row_id) - 1 AS row_id) FROM index_rows "
        "WHERE subject_id = '2'"
    )
    chosen = [place for place, subject in enumerate(subjects) if subject == "2"]
    assert extract(database, VARIABLES).values.tobytes() == everybody[chosen].tobytes()


def test_a_window_after_the_index_date_cannot_be_made() -> None:
    for begins, ends in ((HOUR, -HOUR), (-HOUR, HOUR), (HOUR, HOUR)):
        with pytest.raises(InternalError):
            Window(begins, ends)


def test_criteria_washout_and_follow_up_leave_the_rows_they_should(
    database: duckdb.DuckDBPyConnection,
) -> None:
    put_events(database, EVENTS)
    admitted = IndexEvent(frozenset({"Visit/IP", "Visit/ER", "Visit/OP"}), delay=24 * HOUR)
    year, died = Window(timedelta(days=365)), Outcome(frozenset({DEATH}), timedelta(days=30))

    def subjects(outcome: Outcome, *criteria: Criterion, index: IndexEvent = admitted) -> list[str]:
        make_index_rows(database, index=index, criteria=criteria, outcome=outcome)
        return [row[0] for row in rows_of(database)]

    creatinine = frozenset({"LOINC/2160-0"})
    assert subjects(died) == ["101", "102", "103"]
    assert subjects(died, Criterion(creatinine, year, 2)) == ["101"]
    assert subjects(died, Criterion(creatinine, year, 3)) == []
    assert subjects(died, Criterion(creatinine, year, excludes=True)) == ["102", "103"]
    assert subjects(died, Criterion(creatinine, year, 3, excludes=True)) == ["101", "102", "103"]
    long_seen = IndexEvent(admitted.codes, observed=timedelta(days=60), delay=24 * HOUR)
    assert subjects(died, index=long_seen) == ["103"]
    followed = Outcome(frozenset({DEATH}), timedelta(days=30), followed=True)
    assert subjects(followed) == ["101"]
    assert rows_of(database)[0][2] is True


def test_an_outcome_by_threshold_counts_only_values_beyond_it_in_the_plans_unit(
    database: duckdb.DuckDBPyConnection,
) -> None:
    put_events(database, EVENTS)
    admitted = IndexEvent(frozenset({"Visit/IP"}))
    for above, expected in ((170.0, True), (180.0, False)):
        outcome = Outcome(
            frozenset({"LOINC/2160-0"}), timedelta(days=3), conversions=CONVERSIONS, above=above
        )
        make_index_rows(database, index=admitted, criteria=[], outcome=outcome)
        assert [row[2] for row in rows_of(database)] == [expected]
    outcome = Outcome(
        frozenset({"LOINC/2160-0"}),
        timedelta(days=3),
        gap=HOUR,
        conversions=CONVERSIONS,
        below=90.0,
    )
    make_index_rows(database, index=admitted, criteria=[], outcome=outcome)
    assert [row[2] for row in rows_of(database)] == [False]


def test_values_left_out_are_counted_by_reason(database: duckdb.DuckDBPyConnection) -> None:
    def at(value: float | None, unit: str | None) -> Event:
        return Event("1", START, TEST, value, unit)

    put_events(
        database,
        [
            Event("1", START, ENTRY),
            at(80.0, "umol/L"),
            at(None, "umol/L"),
            at(80.0, "furlong"),
            at(501.0, "umol/L"),
            at(502.0, "umol/L"),
        ],
    )
    make_index_rows(database, index=IndexEvent(frozenset({ENTRY})), criteria=[], outcome=OUTCOME)
    [counts] = extract(database, VARIABLES[:1]).counts
    assert (counts.used, counts.no_value, counts.other_unit, counts.implausible) == (1, 1, 1, 2)


def test_simultaneous_values_count_as_their_largest_in_any_order(
    database: duckdb.DuckDBPyConnection,
) -> None:
    window = Window(HOUR)
    asked: list[Variable] = [
        NumericVariable(frozenset({TEST}), CONVERSIONS, PLAUSIBLE, aggregate, window)
        for aggregate in (Aggregate.FIRST, Aggregate.LAST)
    ]
    asked.append(CategoricalVariable(frozenset({WORDS}), {"female": 0, "male": 1}, window))
    pairs = [
        (Event("1", START, TEST, value, "umol/L"), Event("1", START, WORDS, text_value=text))
        for value, text in ((80.0, "female"), (90.0, "male"), (70.0, "female"))
    ]
    flat = [event for pair in pairs for event in pair]
    for rows in (flat, flat[::-1], flat[2:] + flat[:2]):
        put_events(database, [Event("1", START, ENTRY), *rows])
        make_index_rows(
            database, index=IndexEvent(frozenset({ENTRY})), criteria=[], outcome=OUTCOME
        )
        assert extract(database, asked).values.tolist() == [[90.0, 90.0, 1.0]]
