"""Synthea's bundles, against a slow reference that shares no code with the reader."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from site_client.features.event_patients import read_event_patients
from site_client.sources.events import Exclusion
from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local
from tests.lib.plan_by_pandas import assert_same_rows, rows_by_pandas, synthea_plan

BUNDLES = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "fhir_synthea/bundles.tar.gz"
FEW, ALL = 30, 617
ZONE = ZoneInfo("America/New_York")
VOCABULARIES = {
    "http://snomed.info/sct": "SNOMED",
    "http://loinc.org": "LOINC",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://hl7.org/fhir/sid/cvx": "CVX",
}
CLASSES = {"IMP": "IP", "EMER": "ER", "AMB": "OP"}
Row = tuple[str, datetime | None, str, float | None, str | None, str | None]

pytestmark = pytest.mark.skipif(
    not BUNDLES.is_file(), reason=f"no {BUNDLES}; set COHORTIUM_DATA to the data sets' folder"
)


@pytest.fixture(scope="module", params=[FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the first bundles of the archive, as they are."""
    target = tmp_path_factory.mktemp("synthea")
    written = 0
    with tarfile.open(BUNDLES) as archive:
        for member in archive:
            packed = archive.extractfile(member) if member.isfile() else None
            if packed is not None and written < request.param:
                (target / f"{written}.json").write_bytes(packed.read())
                written += 1
            if written == request.param:
                break
    return target


def code_of(concept: dict[str, Any]) -> str:
    (coding,) = concept["coding"][:1]
    return f"{VOCABULARIES[coding['system']]}/{coding['code']}"


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(ZONE).replace(tzinfo=None) if moment.tzinfo else moment


def value(element: dict[str, Any]) -> tuple[float | None, str | None, str | None]:
    if "valueQuantity" in element:
        quantity = element["valueQuantity"]
        return quantity["value"], quantity.get("code"), None
    if "valueCodeableConcept" in element:
        return None, None, code_of(element["valueCodeableConcept"])
    return None, None, element.get("valueString")


def reference_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    """Return each event with its resource type, the naive way, for what Synthea writes."""
    none = (None, None, None)
    for path in folder.iterdir():
        entries = [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]
        patients = [item for item in entries if item["resourceType"] == "Patient"]
        if not patients:
            continue  # a bundle of hospitals or practitioners
        (patient,) = patients
        who = patient["id"]
        yield "Patient", (who, at(patient["birthDate"]), "MEDS/BIRTH", *none)
        yield "Patient", (who, None, "LOINC/46098-0", None, None, patient["gender"])
        if "deceasedDateTime" in patient:
            yield "Patient", (who, at(patient["deceasedDateTime"]), "MEDS/DEATH", *none)
        for item in entries:
            kind = item["resourceType"]
            if kind == "Encounter":
                name = CLASSES.get(item["class"]["code"], item["class"]["code"])
                yield kind, (who, at(item["period"]["start"]), f"Visit/{name}", *none)
                yield kind, (who, at(item["period"]["end"]), f"VisitEnd/{name}", *none)
            elif kind == "Condition":
                yield kind, (who, at(item["onsetDateTime"]), code_of(item["code"]), *none)
            elif kind == "Observation":
                parts = item.get("component", [item])
                for part in parts:
                    code = code_of(part["code"])
                    yield kind, (who, at(item["effectiveDateTime"]), code, *value(part))
            elif kind == "MedicationRequest" and "medicationCodeableConcept" in item:
                code = code_of(item["medicationCodeableConcept"])
                yield kind, (who, at(item["authoredOn"]), code, *none)
            elif kind in {"MedicationRequest", "MedicationAdministration"}:
                raise AssertionError(kind)
            elif kind == "Procedure":
                yield (
                    kind,
                    (who, at(item["performedPeriod"]["start"]), code_of(item["code"]), *none),
                )
            elif kind == "Immunization":
                code = code_of(item["vaccineCode"])
                yield kind, (who, at(item["occurrenceDateTime"]), code, *none)


def test_syntheas_bundles_give_the_events_of_a_slow_reference(folder: Path, tmp_path: Path) -> None:
    expected: set[Row] = set()
    by_type: Counter[str] = Counter()
    for kind, row in reference_rows(folder):
        expected.add(row)
        by_type[kind] += 1
    with open_local(scratch=tmp_path) as connection:
        counts = FhirFolder(folder, ZONE.key).write_events(connection, "events", scratch=tmp_path)
        rows = connection.execute("SELECT * FROM events").fetchall()
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert set(counts.excluded) == {Exclusion.DUPLICATE}
    assert len(rows) + counts.excluded[Exclusion.DUPLICATE] == by_type.total()
    assert counts.unmapped == {}
    assert counts.records["Patient"] == len({row[0] for row in expected})


def test_the_reference_reads_every_resource_type_with_events(folder: Path) -> None:
    seen = {kind for kind, _ in reference_rows(folder)}
    assert seen >= {
        "Patient",
        "Encounter",
        "Condition",
        "Observation",
        "MedicationRequest",
        "Procedure",
        "Immunization",
    }


@pytest.mark.slow
def test_a_plans_rows_from_syntheas_bundles_are_those_of_pandas(
    folder: Path, tmp_path: Path
) -> None:
    source = FhirFolder(folder, ZONE.key)
    found = read_event_patients(synthea_plan(), source, scratch=tmp_path)
    assert_same_rows(found, rows_by_pandas({row for _, row in reference_rows(folder)}))
