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


def test_a_reference_is_to_the_patient_at_its_end(folder: Path) -> None:
    references = ["Patient/anna", "https://host/fhir/Patient/anna", "Patient/anna/_history/2"]
    references += ["http://host/Patient/x/Patient/anna"]
    lines = [
        observation(subject={"reference": reference}, valueInteger=number)
        for number, reference in enumerate(references)
    ]
    events, _ = read_lines(folder, *lines, ANNA)
    assert [event.subject_id for event in events] == ["anna"] * len(references)


def test_a_reference_to_no_patient_of_the_source_is_counted(folder: Path) -> None:
    references = ["Patient/bob", "Group/anna", "urn:uuid:anna", "anna", "#a", "Patient/"]
    references += ["Patient?identifier=anna", "Patient/" + "a" * 5000, ""]
    subjects = [{"reference": reference} for reference in references]
    subjects += [{"display": "Anna"}, {}]
    lines = [observation(subject=subject) for subject in [*subjects, None]]
    events, counts = read_lines(folder, ANNA, *lines)
    assert (events, counts.excluded) == ([], {Exclusion.NO_SUBJECT: len(lines)})


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
    entries: list[Resource] = [
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
    entries: list[Resource] = [
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
