"""References of FHIR R4: to patients and to medications, in exports and in bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from site_client.sources.events import Exclusion
from tests.lib.fhir_reading import (
    ANNA,
    AT,
    SUBJECT,
    WHEN,
    condition,
    observation,
    read,
    read_bundle,
    read_lines,
)
from tests.lib.fhir_writer import Resource, bundle, concept
from tests.lib.six_patients import Event


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize(
    "reference",
    [
        "Patient/anna",
        "https://host/fhir/Patient/anna",
        "Patient/anna/_history/2",
        "http://host/Patient/x/Patient/anna",
    ],
)
def test_a_reference_is_to_the_patient_at_its_end(folder: Path, reference: str) -> None:
    events, _ = read_lines(folder, observation(subject={"reference": reference}), ANNA)
    assert [event.subject_id for event in events] == ["anna"]


@pytest.mark.parametrize(
    "subject",
    [{"reference": text} for text in ("Patient/bob", "Group/anna", "urn:uuid:anna", "anna", "#a")]
    + [{"reference": "Patient?identifier=anna"}, {"reference": "Patient/"}, {"display": "Anna"}]
    + [{"reference": "Patient/" + "a" * 5000}, {}, None],
)
def test_a_reference_to_no_patient_of_the_source_is_counted(
    folder: Path, subject: Resource | None
) -> None:
    events, counts = read_lines(folder, ANNA, observation(subject=subject))
    assert (events, counts.excluded) == ([], {Exclusion.NO_SUBJECT: 1})


def test_a_patient_may_come_later_and_in_another_file(folder: Path) -> None:
    (folder / "a.ndjson").write_text(json.dumps(observation()))
    (folder / "b.ndjson").write_text(json.dumps(ANNA))
    events, _ = read(folder)
    assert [event.subject_id for event in events] == ["anna"]


def test_a_patient_without_an_id_is_counted(folder: Path) -> None:
    events, counts = read_lines(folder, {"resourceType": "Patient", "birthDate": "1950"})
    assert (events, counts.excluded) == ([], {Exclusion.NO_SUBJECT: 1})


def test_a_urn_is_the_resource_of_its_own_bundle_only(folder: Path) -> None:
    urn = "urn:uuid:0b0b"
    entries = [
        {"resource": observation(subject={"reference": urn})},
        {"fullUrl": urn, "resource": ANNA},
        {"fullUrl": "urn:uuid:0c0c", "resource": {"resourceType": "Group", "id": "anna"}},
        {"resource": condition(subject={"reference": "urn:uuid:0c0c"})},
    ]
    (folder / "other.json").write_text(
        json.dumps(bundle([{"resource": condition(subject={"reference": urn})}]))
    )
    events, counts = read_bundle(folder, *entries)
    assert [event.code for event in events] == ["LOINC/2160-0"]
    assert counts.excluded == {Exclusion.NO_SUBJECT: 2}


def test_a_new_patient_of_a_transaction_has_its_urn_as_id(folder: Path) -> None:
    urn = "urn:uuid:0b0b"
    patient = {"resourceType": "Patient", "gender": "male"}
    entries = [
        {"fullUrl": urn, "resource": patient},
        {"resource": observation(subject={"reference": urn})},
    ]
    events, _ = read_bundle(folder, *entries)
    assert {event.subject_id for event in events} == {"0b0b"}
    assert len(events) == 2


def request(reference: str, **elements: Any) -> Resource:
    return {
        "resourceType": "MedicationRequest",
        "subject": SUBJECT,
        "authoredOn": AT,
        "medicationReference": {"reference": reference},
        **elements,
    }


def test_a_contained_medication_gives_its_code(folder: Path) -> None:
    inner = {"resourceType": "Medication", "id": "m", "code": concept("RxNorm/855332")}
    events, _ = read_lines(folder, ANNA, request("#m", contained=[inner]))
    assert events == [Event("anna", WHEN, "RxNorm/855332")]


def test_a_medication_elsewhere_in_the_export_gives_its_code(folder: Path) -> None:
    medication = {"resourceType": "Medication", "id": "m", "code": concept("RxNorm/855332")}
    (folder / "z.ndjson").write_text(json.dumps(medication))
    events, counts = read_lines(folder, ANNA, request("Medication/m"))
    assert events == [Event("anna", WHEN, "RxNorm/855332")]
    assert counts.records == {"Patient": 1, "MedicationRequest": 1, "Medication": 1}


@pytest.mark.parametrize("own", [{"id": "m"}, {}])
def test_a_medication_of_a_bundle_gives_its_code(folder: Path, own: Resource) -> None:
    medication = {"resourceType": "Medication", "code": concept("RxNorm/855332"), **own}
    events, _ = read_bundle(
        folder,
        {"resource": ANNA},
        {"resource": request("urn:uuid:0d")},
        {"fullUrl": "urn:uuid:0d", "resource": medication},
    )
    assert events == [Event("anna", WHEN, "RxNorm/855332")]


def test_a_medication_without_a_standard_code_is_counted_once_a_request(folder: Path) -> None:
    local = {"coding": [{"system": "l", "code": "m1"}]}
    medication = {"resourceType": "Medication", "id": "m", "code": local}
    lines = [request("Medication/m"), request("Medication/m"), request("Medication/absent")]
    lines += [request("#absent"), request("nowhere")]
    events, counts = read_lines(folder, ANNA, medication, *lines)
    assert events == []
    assert counts.excluded == {Exclusion.UNMAPPED: 2, Exclusion.NO_CODE: 3}
    assert counts.unmapped == {"l|m1": 2}
