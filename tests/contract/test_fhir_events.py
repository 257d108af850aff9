"""FHIR R4 in, event table out: the six patients in every form, patients and encounters."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest

from site_client.sources import fhir_shards
from site_client.sources.events import BIRTH, DEATH, SEX, Exclusion
from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local
from tests.lib.fhir_reading import (
    ANNA,
    AT,
    SUBJECT,
    WHEN,
    condition,
    observation,
    read,
    read_lines,
)
from tests.lib.fhir_writer import Resource, bundle, concept, write_bundles, write_ndjson
from tests.lib.six_patients import Event, expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("write", [write_ndjson, write_bundles])
def test_the_six_patients_are_the_same_event_table_in_every_form(
    folder: Path, write: Any, packed: bool
) -> None:
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    write(deep, packed=packed)
    events, counts = read(folder)
    assert events == expected()
    assert counts.excluded == {}
    assert counts.unmapped == {}
    assert counts.records["Patient"] == 6


def test_an_export_and_its_bundles_together_are_each_event_once(folder: Path) -> None:
    write_ndjson(folder)
    write_bundles(folder)
    events, counts = read(folder)
    assert events == expected()
    assert counts.excluded == {Exclusion.DUPLICATE: len(events)}


@pytest.mark.parametrize(
    ("birth", "day"), [("1950", (1950, 1, 1)), ("1950-07", (1950, 7, 1)), ("1950-07-31", None)]
)
def test_a_partial_birth_date_is_completed_with_the_first(
    folder: Path, birth: str, day: tuple[int, int, int] | None
) -> None:
    events, _ = read_lines(folder, {**ANNA, "birthDate": birth})
    assert events == [Event("anna", datetime(*(day or (1950, 7, 31))), BIRTH)]  # noqa: DTZ001


@pytest.mark.parametrize("gender", ["male", "female", "other", "unknown"])
def test_gender_is_sex_without_a_time(folder: Path, gender: str) -> None:
    events, _ = read_lines(folder, {**ANNA, "gender": gender})
    assert events == [Event("anna", None, SEX, text_value=gender)]


def test_another_gender_is_counted_and_not_named(folder: Path) -> None:
    events, counts = read_lines(folder, {**ANNA, "gender": "marker"})
    assert events == []
    assert counts.excluded == {Exclusion.UNMAPPED: 1}
    assert counts.unmapped == {"Patient.gender of another value set": 1}


def test_a_death_without_a_time_is_counted_and_no_event(folder: Path) -> None:
    events, counts = read_lines(folder, {**ANNA, "deceasedBoolean": True})
    assert events == []
    assert counts.excluded == {Exclusion.TIME_UNREADABLE: 1}


def test_a_patient_said_to_live_is_nothing(folder: Path) -> None:
    events, counts = read_lines(folder, {**ANNA, "deceasedBoolean": False})
    assert (events, counts.excluded) == ([], {})


def test_a_death_has_the_wall_clock_of_the_site(folder: Path) -> None:
    events, _ = read_lines(folder, {**ANNA, "deceasedDateTime": "2020-07-01T23:30:00Z"})
    assert events == [Event("anna", datetime(2020, 7, 2, 0, 30), DEATH)]  # noqa: DTZ001


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *[(code, "IP") for code in ("IMP", "ACUTE", "NONAC")],
        ("EMER", "ER"),
        *[(code, "OP") for code in ("AMB", "VR", "HH")],
        ("FLD", "FLD"),
    ],
)
def test_an_encounter_starts_and_ends_a_visit_of_its_class(
    folder: Path, code: str, name: str
) -> None:
    encounter = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": code},
        "subject": SUBJECT,
        "period": {"start": AT, "end": "2020-01-03"},
    }
    events, _ = read_lines(folder, ANNA, encounter)
    assert events == [
        Event("anna", WHEN, f"Visit/{name}"),
        Event("anna", datetime(2020, 1, 3), f"VisitEnd/{name}"),  # noqa: DTZ001
    ]


@pytest.mark.parametrize("period", [{"start": AT}, {}, None])
def test_a_stay_without_an_end_goes_on_and_one_without_a_start_is_counted(
    folder: Path, period: Resource | None
) -> None:
    encounter = {
        "resourceType": "Encounter",
        "class": {"code": "IMP"},
        "subject": SUBJECT,
        "period": period,
    }
    events, counts = read_lines(folder, ANNA, encounter)
    assert [event.code for event in events] == (["Visit/IP"] if period else [])
    assert counts.excluded == ({} if period else {Exclusion.TIME_UNREADABLE: 1})


def test_an_encounter_without_a_class_has_no_code(folder: Path) -> None:
    encounter = {"resourceType": "Encounter", "subject": SUBJECT, "period": {"start": AT}}
    events, counts = read_lines(folder, ANNA, encounter)
    assert (events, counts.excluded) == ([], {Exclusion.NO_CODE: 1})


@pytest.mark.parametrize(
    "kind",
    [
        "Encounter",
        "Observation",
        "MedicationRequest",
        "MedicationAdministration",
        "Procedure",
        "Immunization",
    ],
)
def test_what_was_entered_in_error_is_counted_and_no_event(folder: Path, kind: str) -> None:
    events, counts = read_lines(
        folder, ANNA, {**observation(), "resourceType": kind, "status": "entered-in-error"}
    )
    assert (events, counts.excluded) == ([], {Exclusion.ENTERED_IN_ERROR: 1})


def test_a_condition_entered_in_error_is_counted_and_a_refuted_one_is_none(folder: Path) -> None:
    lines = [
        condition(verificationStatus={"coding": [{"code": code}]})
        for code in ("entered-in-error", "refuted")
    ]
    events, counts = read_lines(folder, ANNA, *lines)
    assert (events, counts.excluded) == ([], {Exclusion.ENTERED_IN_ERROR: 1})
    assert counts.records["Condition"] == 2


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("Procedure", {"status": "not-done", "performedDateTime": AT}),
        ("Immunization", {"status": "not-done", "occurrenceDateTime": AT}),
        ("MedicationAdministration", {"status": "not-done"}),
        ("MedicationRequest", {"status": "cancelled", "authoredOn": AT}),
        ("MedicationRequest", {"doNotPerform": True, "authoredOn": AT}),
        ("Encounter", {"status": "planned", "class": {"code": "IMP"}, "period": {"start": AT}}),
        ("Observation", {"status": "cancelled"}),
    ],
)
def test_what_did_not_happen_is_only_a_record(folder: Path, kind: str, elements: Resource) -> None:
    coded = {"medicationCodeableConcept": concept("CVX/1"), "vaccineCode": concept("CVX/1")}
    resource = {**observation(), **coded, "patient": SUBJECT, "resourceType": kind, **elements}
    events, counts = read_lines(folder, ANNA, resource)
    assert (events, counts.excluded) == ([], {})
    assert counts.records[kind] == 1


def test_other_resource_types_are_counted_and_skipped(folder: Path) -> None:
    lines = [{"resourceType": kind} for kind in ("Claim", "Claim", "Goal", "Marker")]
    events, counts = read_lines(folder, *lines)
    assert events == []
    assert counts.records == {"Claim": 2, "Goal": 1, "another resource type": 1}


def test_an_exact_duplicate_is_one_event(folder: Path) -> None:
    lines = [observation(id=str(number), valueInteger=1) for number in range(3)]
    events, counts = read_lines(folder, ANNA, *lines, observation(valueInteger=2))
    assert [event.numeric_value for event in events] == [1.0, 2.0]
    assert counts.excluded == {Exclusion.DUPLICATE: 2}


@pytest.mark.parametrize("kind", ["collection", "transaction", "batch", "searchset"])
def test_a_bundle_of_each_type_is_read_and_so_is_one_on_a_line(folder: Path, kind: str) -> None:
    entries = [{"resource": ANNA}, {"resource": observation()}, {"request": {"method": "DELETE"}}]
    (folder / "one.ndjson").write_text(json.dumps(bundle(entries, kind)))
    events, _ = read(folder)
    assert len(events) == 1


def test_a_single_resource_in_a_file_a_byte_order_mark_and_blank_lines_are_read(
    folder: Path,
) -> None:
    (folder / "anna.JSON").write_bytes(b"\xef\xbb\xbf" + json.dumps(ANNA).encode())
    (folder / "a.ndjson").write_text("\ufeff\n \r\n" + json.dumps(observation()) + "\r\n\n")
    events, _ = read(folder)
    assert len(events) == 1


def test_batches_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_shards, "_ROWS_MAX", 1)
    write_ndjson(folder)
    events, _ = read(folder)
    assert events == expected()


def peak_of(folder: Path, tmp_path: Path, lines: int) -> int:
    with (folder / "a.ndjson").open("w") as export:
        export.write(json.dumps(ANNA) + "\n")
        for number in range(lines):
            export.write(json.dumps(observation(id=str(number), valueInteger=number)) + "\n")
    connection = open_local(scratch=tmp_path)
    source = FhirFolder(folder, "Europe/London")
    tracemalloc.start()
    arrow_before = arrow.total_allocated_bytes()
    counts = source.write_events(connection, f"events {lines}", scratch=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrow.total_allocated_bytes() <= arrow_before
    assert counts.records["Observation"] == lines
    connection.close()
    return peak


def test_memory_does_not_grow_with_the_number_of_lines(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhir_shards, "_ROWS_MAX", 500)
    few = peak_of(folder, tmp_path, 2_000)
    many = peak_of(folder, tmp_path, 16_000)
    assert many < 1.5 * few


def test_each_code_is_its_own_only_descendant(folder: Path) -> None:
    codes = frozenset({"SNOMED/1", "LOINC/2"})
    found = FhirFolder(folder, "UTC").descendants(codes)
    assert found == {code: frozenset({code}) for code in codes}
