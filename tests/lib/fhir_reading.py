"""FHIR resources of one invented patient, read in the way the site reads them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from site_client.sources.events import SourceCounts
from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local
from tests.lib.fhir_writer import Resource, bundle, concept
from tests.lib.six_patients import Event, events_in

ANNA = {"resourceType": "Patient", "id": "anna"}
SUBJECT = {"reference": "Patient/anna"}
AT = "2020-01-02T03:04:05+00:00"
WHEN = datetime(2020, 1, 2, 3, 4, 5)  # noqa: DTZ001
UCUM = "http://unitsofmeasure.org"


def observation(**elements: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": concept("LOINC/2160-0"),
        "subject": SUBJECT,
        "effectiveDateTime": AT,
        **elements,
    }


def condition(**elements: Any) -> Resource:
    return {
        "resourceType": "Condition",
        "code": concept("SNOMED/22298006"),
        "subject": SUBJECT,
        "onsetDateTime": AT,
        **elements,
    }


def read(
    folder: Path, zone: str = "Europe/London", **options: Any
) -> tuple[list[Event], SourceCounts]:
    scratch = folder.parent / f"{folder.name}-scratch"
    scratch.mkdir(exist_ok=True)
    with open_local(scratch=scratch) as connection:
        counts = FhirFolder(folder, zone, **options).write_events(
            connection, "events", scratch=scratch
        )
        return events_in(connection, "events"), counts


def read_lines(
    folder: Path, *resources: Resource, zone: str = "Europe/London"
) -> tuple[list[Event], SourceCounts]:
    (folder / "all.ndjson").write_text("".join(json.dumps(item) + "\n" for item in resources))
    return read(folder, zone)


def read_bundle(folder: Path, *entries: Resource) -> tuple[list[Event], SourceCounts]:
    (folder / "one.json").write_text(json.dumps(bundle(list(entries))))
    return read(folder)
