"""The six patients as FHIR R4 resources, written as a bulk export and as transaction bundles."""

from __future__ import annotations

import gzip
import json
import uuid
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from site_client.sources.events import BIRTH, DEATH, SEX
from tests.lib.six_patients import EVENTS, Event

LONDON = ZoneInfo("Europe/London")
ELSEWHERE = timezone(timedelta(hours=5, minutes=30))
_SYSTEMS = {
    "LOINC": "http://loinc.org",
    "SNOMED": "http://snomed.info/sct",
    "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "CVX": "http://hl7.org/fhir/sid/cvx",
}
_CLASSES = {"IP": "IMP", "OP": "AMB", "ER": "EMER"}
_PROCEDURES = {"SNOMED/274474001"}
Resource = dict[str, Any]


def concept(code: str) -> Resource:
    vocabulary, _, own = code.partition("/")
    return {"coding": [{"system": _SYSTEMS[vocabulary], "code": own, "display": "a name"}]}


def instant(event: Event) -> str:
    """Return the moment as another zone's clock shows it: a reader that drops offsets is wrong."""
    assert event.time is not None
    return event.time.replace(tzinfo=LONDON).astimezone(ELSEWHERE).isoformat()


def resources() -> list[Resource]:
    """Return every resource; the two components of one blood pressure share an Observation."""
    found: list[Resource] = []
    for subject in sorted({event.subject_id for event in EVENTS}):
        own = [event for event in EVENTS if event.subject_id == subject]
        found.append(_patient(subject, own))
        starts = [event for event in own if event.code.startswith("Visit/")]
        ends = [event for event in own if event.code.startswith("VisitEnd/")]
        for start, end in zip(starts, ends, strict=True):
            found.append(_encounter(subject, start, end))
        pressure = [event for event in own if event.unit == "mm[Hg]"]
        if pressure:
            found.append(_pressure(subject, pressure))
        found += [
            _other(subject, event)
            for event in own
            if event.code.partition("/")[0] in _SYSTEMS
            and event.code != SEX
            and event not in pressure
        ]
    for number, resource in enumerate(found):
        resource.setdefault("id", f"r{number}")
    return found


def write_ndjson(folder: Path, *, packed: bool = False) -> None:
    """Write one file per resource type, as a bulk export has them."""
    by_type: dict[str, list[str]] = {}
    for resource in resources():
        by_type.setdefault(resource["resourceType"], []).append(json.dumps(resource))
    for kind, lines in by_type.items():
        content = ("\n".join(lines) + "\n").encode()
        if packed:
            (folder / f"{kind}.000.ndjson.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{kind}.000.ndjson").write_bytes(content)


def write_bundles(folder: Path, *, packed: bool = False) -> None:
    """Write one transaction bundle a patient, with references by `urn:uuid:`."""
    everything = resources()
    for patient in (item for item in everything if item["resourceType"] == "Patient"):
        subject = patient["id"]
        urn = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, subject)}"
        own = [item for item in everything if _subject(item) == f"Patient/{subject}"]
        entries = [{"fullUrl": urn, "resource": patient}]
        for item in own:
            name = "patient" if "patient" in item else "subject"
            entries.append({"resource": {**item, name: {"reference": urn}}})
        content = json.dumps(bundle(entries, "transaction"), indent=2).encode()
        if packed:
            (folder / f"{subject}.json.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{subject}.json").write_bytes(content)


def bundle(entries: list[Resource], kind: str = "collection") -> Resource:
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def _subject(resource: Resource) -> str | None:
    reference = resource.get("subject") or resource.get("patient") or {}
    return reference.get("reference")


def _patient(subject: str, own: list[Event]) -> Resource:
    patient: Resource = {"resourceType": "Patient", "id": subject}
    for event in own:
        if event.code == SEX:
            patient["gender"] = event.text_value
        elif event.code == BIRTH and event.time is not None:
            patient["birthDate"] = event.time.date().isoformat()
        elif event.code == DEATH:
            patient["deceasedDateTime"] = instant(event)
    return patient


def _encounter(subject: str, start: Event, end: Event) -> Resource:
    return {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": _CLASSES[start.code.partition("/")[2]]},
        "subject": {"reference": f"Patient/{subject}"},
        "period": {"start": instant(start), "end": instant(end)},
    }


def _quantity(event: Event) -> Resource:
    return {
        "value": event.numeric_value,
        "unit": "as printed",
        "system": "http://unitsofmeasure.org",
        "code": event.unit,
    }


def _pressure(subject: str, pressure: list[Event]) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": concept("LOINC/85354-9"),
        "subject": {"reference": f"Patient/{subject}"},
        "effectiveDateTime": instant(pressure[0]),
        "component": [
            {"code": concept(event.code), "valueQuantity": _quantity(event)} for event in pressure
        ],
    }


def _other(subject: str, event: Event) -> Resource:
    vocabulary = event.code.partition("/")[0]
    reference = {"reference": f"Patient/{subject}"}
    if vocabulary == "LOINC":
        value: Resource = (
            {"valueQuantity": _quantity(event)}
            if event.text_value is None
            else {"valueCodeableConcept": concept(event.text_value)}
        )
        return {
            "resourceType": "Observation",
            "status": "final",
            "code": concept(event.code),
            "subject": reference,
            "effectiveDateTime": instant(event),
            **value,
        }
    if vocabulary == "RxNorm":
        return {
            "resourceType": "MedicationRequest",
            "status": "active",
            "medicationCodeableConcept": concept(event.code),
            "subject": reference,
            "authoredOn": instant(event),
        }
    if vocabulary == "CVX":
        return {
            "resourceType": "Immunization",
            "status": "completed",
            "vaccineCode": concept(event.code),
            "patient": reference,
            "occurrenceDateTime": instant(event),
        }
    if event.code in _PROCEDURES:
        return {
            "resourceType": "Procedure",
            "status": "completed",
            "code": concept(event.code),
            "subject": reference,
            "performedPeriod": {"start": instant(event)},
        }
    assert event.time is not None
    return {
        "resourceType": "Condition",
        "code": concept(event.code),
        "subject": reference,
        "onsetDateTime": event.time.date().isoformat(),
    }
