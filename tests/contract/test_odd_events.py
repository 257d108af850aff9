"""What is odd in a hospital's data is counted the same way in every format, and breaks no build."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.matrix import build_matrix
from site_client.sources.events import BIRTH, Exclusion
from site_client.sources.local_database import open_local
from tests.lib import fhir_writer, six_patients_meds, six_patients_omop, six_patients_vendor
from tests.lib.event_plans import COHORT, CREATININE, plan_for_events
from tests.lib.six_patients import EVENTS, Event, events_in
from tests.lib.six_sources import SOURCES

Build = Callable[..., EventPatients]
READERS = ["OMOP as CSV", "FHIR as NDJSON", "MEDS", "a vendor's tables"]
LAST_CREATININE = Event(
    "101", datetime.fromisoformat("2021-02-04T06:10:00"), "LOINC/2160-0", 176.8, "umol/L"
)
assert LAST_CREATININE in EVENTS


def replaced(old: Event, *new: Event) -> tuple[Event, ...]:
    """Return the six patients' events with one in place of another, in its place."""
    place = EVENTS.index(old)
    return (*EVENTS[:place], *new, *EVENTS[place + 1 :])


def put(monkeypatch: pytest.MonkeyPatch, events: Iterable[Event]) -> None:
    for module in (fhir_writer, six_patients_meds, six_patients_omop, six_patients_vendor):
        monkeypatch.setattr(module, "EVENTS", tuple(events))


@pytest.fixture(params=READERS)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Build:
    """Return what builds a plan's rows from one format of the events that it is given."""

    def of(events: Iterable[Event], **changes: Any) -> EventPatients:
        put(monkeypatch, events)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        source = SOURCES[request.param](tmp_path / "data")
        return read_event_patients(plan_for_events(**changes), source, scratch=scratch)

    return of


def test_a_placeholder_for_a_date_is_a_counted_exclusion(build: Build) -> None:
    odd = LAST_CREATININE._replace(time=datetime.fromisoformat("0001-01-01T00:00:00"))
    found = build(replaced(LAST_CREATININE, odd))
    assert found.source.excluded == {Exclusion.TIME_IMPOSSIBLE: 1}
    np.testing.assert_allclose(found.table.numeric["creatinine"][0], 1.0, rtol=1e-4)


def test_the_largest_number_is_implausible_and_overflows_nothing(build: Build) -> None:
    """MEDS has 32 bits for a number: there it is not finite."""
    found = build(replaced(LAST_CREATININE, LAST_CREATININE._replace(numeric_value=1e308)))
    np.testing.assert_allclose(found.table.numeric["creatinine"][0], 1.0, rtol=1e-4)
    met = found.variables["creatinine"]
    unreadable = found.source.excluded.get(Exclusion.VALUE_UNREADABLE, 0)
    assert (met.used, met.implausible + met.no_value, met.no_value) == (1, 1, unreadable)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_the_matrix_is_finite_even_where_a_plan_takes_the_largest_numbers(build: Build) -> None:
    odd = LAST_CREATININE._replace(numeric_value=1.7e308)
    next_hour = odd._replace(time=datetime.fromisoformat("2021-02-04T07:00:00"))
    wide = {**CREATININE, "aggregate": "slope", "plausible_range": [-1.7e308, 1.7e308]}
    changes = {"features__1": {**wide, "unit": "umol/L"}}
    found = build(replaced(LAST_CREATININE, odd, next_hour), **changes)
    assert found.table.subject_ids == ("101", "102", "103")
    matrix = build_matrix(found.table, plan_for_events(**changes), salt=b"0" * 32)
    assert np.isfinite(matrix.x).all()


def test_who_is_born_after_the_index_date_has_no_row(build: Build) -> None:
    born = next(event for event in EVENTS if (event.subject_id, event.code) == ("101", BIRTH))
    late = born._replace(time=datetime.fromisoformat("2022-01-01T00:00:00"))
    found = build(replaced(born, late))
    assert found.table.subject_ids == ("102", "103")
    assert found.source.excluded == {}
    ages = next(step for step in found.attrition if step.step == "of the plan's ages")
    assert (found.attrition[0].patients, ages.patients) == (3, 2)


def test_two_units_of_one_code_are_both_brought_to_the_plans(build: Build) -> None:
    """Patient 106: 5.5 mmol/L and, at the same second, 99 mg/dL."""
    cohort = {**COHORT, "index_date": {"description": "Glucose", "codes": ["LOINC/2345-7"]}}
    glucose = {
        **CREATININE,
        "name": "glucose",
        "codes": ["LOINC/2345-7"],
        "unit": "mmol/L",
        "analyte": "Glucose",
        "aggregate": "mean",
    }
    found = build(EVENTS, cohort=cohort, features__1=glucose)
    assert found.table.subject_ids == ("106",)
    assert found.variables["glucose"].used == 2
    # 99 mg/dL over 180.156 g/mol is 5.49524 mmol/L.
    np.testing.assert_allclose(found.table.numeric["glucose"], [(5.5 + 5.49524) / 2], rtol=1e-5)


@pytest.mark.parametrize("name", READERS)
def test_the_wall_clock_stays_what_it_was_on_days_when_clocks_change(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """London: an hour is left out on 28 March 2021 and comes twice on 31 October."""
    times = ["2021-03-28T00:59:59", "2021-03-28T02:00:00", "2021-10-31T01:30:00"]
    times += ["2021-10-31T00:30:00", "2021-10-31T02:00:00"]
    odd = [LAST_CREATININE._replace(time=datetime.fromisoformat(text)) for text in times]
    put(monkeypatch, replaced(LAST_CREATININE, *odd))
    (tmp_path / "scratch").mkdir()
    source = SOURCES[name](tmp_path / "data")
    with open_local(scratch=tmp_path / "scratch") as connection:
        source.write_events(connection, "events", scratch=tmp_path / "scratch")
        found = events_in(connection, "events")
    assert [event for event in found if event in odd] == sorted(
        odd, key=lambda event: str(event.time)
    )
