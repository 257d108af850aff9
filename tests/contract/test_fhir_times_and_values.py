"""Times, values and codes of FHIR R4, rule by rule."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common import limits
from common.errors import ConfigError, DataSourceError
from site_client.sources.events import Exclusion
from site_client.sources.fhir import FhirFolder
from tests.lib.fhir_reading import (
    ANNA,
    AT,
    SUBJECT,
    UCUM,
    WHEN,
    condition,
    observation,
    read,
    read_lines,
)
from tests.lib.fhir_writer import Resource, concept
from tests.lib.six_patients import Event


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("Condition", {"code": 1, "onsetDateTime": AT, "recordedDate": "2021"}),
        ("Condition", {"code": 1, "onsetPeriod": {"start": AT}, "recordedDate": "2021"}),
        ("Condition", {"code": 1, "onsetPeriod": {"end": "2021"}, "recordedDate": AT}),
        ("Condition", {"code": 1, "recordedDate": AT}),
        ("Observation", {"code": 1, "effectiveDateTime": AT, "issued": "2021"}),
        ("Observation", {"code": 1, "effectivePeriod": {"start": AT}, "issued": "2021"}),
        ("Observation", {"code": 1, "effectiveInstant": AT, "issued": "2021"}),
        ("Observation", {"code": 1, "issued": AT}),
        ("MedicationRequest", {"medicationCodeableConcept": 1, "authoredOn": AT}),
        ("MedicationAdministration", {"medicationCodeableConcept": 1, "effectiveDateTime": AT}),
        (
            "MedicationAdministration",
            {"medicationCodeableConcept": 1, "effectivePeriod": {"start": AT}},
        ),
        ("Procedure", {"code": 1, "performedDateTime": AT}),
        ("Procedure", {"code": 1, "performedPeriod": {"start": AT}}),
        ("Immunization", {"vaccineCode": 1, "patient": SUBJECT, "occurrenceDateTime": AT}),
    ],
)
def test_each_resource_is_one_event_at_the_first_of_its_times(
    folder: Path, kind: str, elements: Resource
) -> None:
    code = "RxNorm/855332"
    filled = {name: concept(code) if value == 1 else value for name, value in elements.items()}
    resource = {"resourceType": kind, "status": "completed", "subject": SUBJECT, **filled}
    events, counts = read_lines(folder, ANNA, resource)
    assert events == [Event("anna", WHEN, code)]
    assert counts.records == {"Patient": 1, kind: 1}


WALL_CLOCKS = {
    "2020-01-02T03:04:05+00:00": "2020-01-02T03:04:05",
    "2020-07-02T03:04:05+00:00": "2020-07-02T04:04:05",
    "2020-07-03T03:04:05Z": "2020-07-03T04:04:05",
    "2020-07-02T03:04:05-05:00": "2020-07-02T09:04:05",
    "2020-03-29T00:59:59.999Z": "2020-03-29T00:59:59.999",
    "2020-03-29T01:00:00Z": "2020-03-29T02:00:00",
    "2020-07-02T03:04:05": "2020-07-02T03:04:05",
    "2020-07-02T03:04": "2020-07-02T03:04:00",
    "2020-07-02T03:04:05.1234567Z": "2020-07-02T04:04:05.123456",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00",
    "2020-07-02": "2020-07-02",
    "2020-07": "2020-07-01",
    "2020": "2020-01-01",
    "1870": "1870-01-01",
}


def test_a_time_is_the_wall_clock_of_the_site(folder: Path) -> None:
    lines = [observation(effectiveDateTime=text, valueString=text) for text in WALL_CLOCKS]
    events, counts = read_lines(folder, ANNA, *lines)
    found = {event.text_value: event.time for event in events}
    assert found == {
        text: datetime.fromisoformat(wall_clock) for text, wall_clock in WALL_CLOCKS.items()
    }
    assert counts.excluded == {}


def test_a_time_that_cannot_be_read_is_counted(folder: Path) -> None:
    texts: list[object] = ["", "yesterday", "2020-13", "2020-02-30", "20200102", "2020-W01-1"]
    texts += ["2020-1-2", "02.01.2020", "2020-01-02 03:04:05", "2020-01-02T25:00:00", "0000"]
    texts += ["2020-01-02T03:04:05+99:00", "\u0662020", 20200102, True, {}, [], {"start": AT}]
    texts += ["2" * 5000]
    lines = [observation(effectiveDateTime=text) for text in texts]
    events, counts = read_lines(folder, ANNA, *lines)
    assert (events, counts.excluded) == ([], {Exclusion.TIME_UNREADABLE: len(lines)})


def test_a_placeholder_year_is_no_time(folder: Path) -> None:
    texts = ["0001-01-01", "1753-01-01T00:00:00Z", "1869-12-31", "2999"]
    texts += ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"]
    lines = [observation(effectiveDateTime=text) for text in texts]
    events, counts = read_lines(folder, ANNA, *lines)
    assert (events, counts.excluded) == ([], {Exclusion.TIME_IMPOSSIBLE: len(lines)})


def test_a_time_later_than_a_day_after_the_file_is_impossible(folder: Path) -> None:
    (folder / "all.ndjson").write_text(
        "\n".join(
            json.dumps(item)
            for item in (
                ANNA,
                observation(effectiveDateTime="2020-01-02T11:59:59Z"),
                observation(effectiveDateTime="2020-01-02T12:00:01Z"),
            )
        )
    )
    moment = datetime(2020, 1, 1, 12, tzinfo=UTC).timestamp()
    os.utime(folder / "all.ndjson", (moment, moment))
    events, counts = read(folder)
    assert [event.time for event in events] == [datetime(2020, 1, 2, 11, 59, 59)]  # noqa: DTZ001
    assert counts.excluded == {Exclusion.TIME_IMPOSSIBLE: 1}


@pytest.mark.parametrize("kind", ["Condition", "Observation", "Procedure"])
def test_an_event_without_any_time_is_counted(folder: Path, kind: str) -> None:
    resource = {"resourceType": kind, "code": concept("SNOMED/1"), "subject": SUBJECT}
    events, counts = read_lines(folder, ANNA, resource)
    assert (events, counts.excluded) == ([], {Exclusion.TIME_UNREADABLE: 1})


def test_an_unknown_time_zone_is_refused() -> None:
    for name in ("Europe/Nowhere", "", "../secret", "/etc/passwd", "a\0b", "Europe"):
        with pytest.raises(ConfigError):
            FhirFolder(Path(), name)


VALUES: list[tuple[Resource, float | None, str | None, str | None]] = [
    ({"valueQuantity": {"value": 1.5, "unit": "u", "system": UCUM, "code": "c"}}, 1.5, "c", None),
    ({"valueQuantity": {"value": 2, "unit": "u", "system": "s", "code": "c"}}, 2.0, "u", None),
    ({"valueQuantity": {"value": 3, "unit": "u", "system": UCUM}}, 3.0, "u", None),
    ({"valueQuantity": {"value": -0.5}}, -0.5, None, None),
    ({"valueInteger": 7}, 7.0, None, None),
    ({"valueBoolean": True}, None, None, "true"),
    ({"valueBoolean": False}, None, None, "false"),
    ({"valueString": "cloudy\0"}, None, None, "cloudy\0"),
    ({"valueCodeableConcept": concept("SNOMED/8517006")}, None, None, "SNOMED/8517006"),
    ({"valueCodeableConcept": {"text": "never"}}, None, None, "never"),
    ({"valueCodeableConcept": {"coding": [{"display": "always"}]}}, None, None, "always"),
    ({"dataAbsentReason": {"text": "unknown"}}, None, None, None),
    ({"valueTime": "10:00"}, None, None, None),
    ({}, None, None, None),
]


def test_a_value_is_a_number_with_its_unit_or_words(folder: Path) -> None:
    lines = [
        observation(**elements, code=concept(f"LOINC/{number}"))
        for number, (elements, *_) in enumerate(VALUES)
    ]
    events, counts = read_lines(folder, ANNA, *lines)
    assert set(events) == {
        Event("anna", WHEN, f"LOINC/{index}", number, unit, words)
        for index, (_, number, unit, words) in enumerate(VALUES)
    }
    assert counts.excluded == {}


@pytest.mark.parametrize(
    ("name", "element"),
    [("valueQuantity", '{"value": %s, "unit": "mg"}'), ("valueInteger", "%s")],
)
def test_a_number_that_is_none_or_not_finite_leaves_the_event_without_it(
    folder: Path, name: str, element: str
) -> None:
    values = ["1e309", "-1e999", "9" * 400, '"12"', "true", "null", "{}", "[]"]
    lines = [json.dumps(ANNA)]
    for number, value in enumerate(values):
        line = observation(**{name: "HERE", "code": concept(f"LOINC/{number}")})
        lines.append(json.dumps(line).replace('"HERE"', element % value))
    (folder / "all.ndjson").write_text("\n".join(lines))
    events, counts = read(folder)
    unit = "mg" if name == "valueQuantity" else None
    codes = [f"LOINC/{number}" for number in range(len(values))]
    assert events == [Event("anna", WHEN, code, None, unit) for code in codes]
    assert counts.excluded == {Exclusion.VALUE_UNREADABLE: len(values)}


def test_components_are_events_of_their_own_and_the_parent_only_with_a_value(
    folder: Path,
) -> None:
    component = [
        {"code": concept("LOINC/8480-6"), "valueQuantity": {"value": 142, "unit": "mmHg"}},
        {"code": concept("LOINC/8462-4"), "dataAbsentReason": {"text": "unknown"}},
    ]
    parts = [
        Event("anna", WHEN, "LOINC/8462-4"),
        Event("anna", WHEN, "LOINC/8480-6", 142.0, "mmHg"),
    ]
    events, _ = read_lines(folder, ANNA, observation(component=component))
    assert events == parts
    events, _ = read_lines(folder, ANNA, observation(component=component, valueInteger=3))
    assert events == [Event("anna", WHEN, "LOINC/2160-0", 3.0), *parts]


def test_the_first_known_coding_in_the_order_of_preference_is_the_code(folder: Path) -> None:
    systems = [
        ("http://hl7.org/fhir/sid/icd-9-cm", "ICD9CM"),
        ("http://www.whocc.no/atc", "ATC"),
        ("http://hl7.org/fhir/sid/icd-10", "ICD10"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "ICD10CM"),
        ("http://hl7.org/fhir/sid/cvx", "CVX"),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "RxNorm"),
        ("http://loinc.org", "LOINC"),
        ("http://snomed.info/sct", "SNOMED"),
    ]
    codings: list[Resource] = [{"system": "urn:local", "code": "x"}, {"display": "no code"}]
    codings += [{"system": "http://snomed.info/sct"}]
    for uri, name in systems:
        codings += [{"system": uri, "code": "first"}, {"system": uri, "code": "second"}]
        events, _ = read_lines(folder, ANNA, condition(code={"coding": codings}))
        assert [event.code for event in events] == [f"{name}/first"]


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ({"coding": [{"system": "urn:local", "code": "K1", "display": "marker"}]}, "urn:local|K1"),
        ({"coding": [{"code": "K1"}]}, "|K1"),
        ({"coding": [{"display": "marker"}]}, "Condition without a coding"),
        ({"text": "marker"}, "Condition without a coding"),
        ({"coding": [{"system": "s" * 500, "code": "K1"}]}, "s" * 120),
    ],
)
def test_a_code_without_a_standard_one_is_counted_by_system_and_code(
    folder: Path, code: Resource, key: str
) -> None:
    events, counts = read_lines(folder, ANNA, condition(code=code))
    assert (events, counts.excluded) == ([], {Exclusion.UNMAPPED: 1})
    assert counts.unmapped == {key: 1}


def test_unmapped_codes_beyond_the_bound_are_counted_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SOURCE_CODES_LISTED_MAX", 2)
    codes = [{"coding": [{"system": "l", "code": str(n)}]} for n in (1, 2, 3, 4, 1)]
    _, counts = read_lines(folder, ANNA, *[condition(code=code) for code in codes])
    assert counts.unmapped == {"l|1": 2, "l|2": 1, "other codes": 2}


def test_a_resource_without_a_code_is_counted(folder: Path) -> None:
    events, counts = read_lines(folder, ANNA, condition(code=None))
    assert (events, counts.excluded) == ([], {Exclusion.NO_CODE: 1})


LOCAL = {
    "coding": [
        {"system": "urn:lab", "code": "CREA"},
        {"system": "http://loinc.org", "code": "2161-8"},
    ]
}


def write_local(folder: Path) -> None:
    answer = {"valueCodeableConcept": {"coding": [{"system": "urn:lab", "code": "POS"}]}}
    lines = [ANNA, observation(code=LOCAL, **answer)]
    (folder / "all.ndjson").write_text("".join(json.dumps(item) + "\n" for item in lines))


def test_a_sites_code_map_goes_before_any_coding_and_is_for_answers_too(folder: Path) -> None:
    write_local(folder)
    (folder.parent / "map.csv").write_text("code,standard_code\nurn:lab|POS,SNOMED/10828004\n")
    (event,), _ = read(
        folder,
        code_map={"urn:lab|CREA": "LOINC/2160-0"},
        code_maps={"map.csv": folder.parent / "map.csv"},
    )
    assert (event.code, event.text_value) == ("LOINC/2160-0", "SNOMED/10828004")
    (event,), _ = read(folder)
    assert event.code == "LOINC/2161-8"


def test_a_code_map_changes_the_fingerprint(folder: Path) -> None:
    write_local(folder)
    plain = FhirFolder(folder, "Europe/London")
    mapped = FhirFolder(folder, "Europe/London", code_map={"urn:lab|CREA": "LOINC/2160-0"})
    assert plain.fingerprint() != mapped.fingerprint()


def test_a_code_with_two_standard_codes_is_refused(folder: Path) -> None:
    write_local(folder)
    lines = "code,standard_code\nurn:lab|POS,A/1\nurn:lab|POS,A/2\n"
    (folder.parent / "map.csv").write_text(lines)
    with pytest.raises(DataSourceError, match="one code two standard codes"):
        read(folder, code_maps={"map.csv": folder.parent / "map.csv"})
