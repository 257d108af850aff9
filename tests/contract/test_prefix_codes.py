"""A plan's codes that end in a star find what a site recorded, with dots or without."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from common.study.plan import StudyPlan
from site_client.features.event_patients import read_event_patients
from site_client.features.prefix_codes import asked_of_source, narrower_of_plan
from site_client.sources.local_database import open_local
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.event_plans import plan_for_events
from tests.lib.six_patients_meds import write_shard

BORN = datetime.datetime.fromisoformat("1950-01-01")
ADMITTED = datetime.datetime.fromisoformat("2020-06-01T08:00")
BEFORE = datetime.datetime.fromisoformat("2020-01-01")

# Who had heart failure by ICD-10-CM, by each site's way of writing it; the others had not.
DIAGNOSES = {
    1: "ICD10CM//I50.9",
    2: "ICD10CM//I509",
    3: "ICD10CM//I50",
    4: "ICD10CM//I5A",
    5: "ICD10//I50.9",
    6: "ICD9CM//428.0",
}


def meds(folder: Path) -> MedsFolder:
    rows = []
    for subject, code in DIAGNOSES.items():
        rows += [
            {"subject_id": subject, "time": BORN, "code": "MEDS_BIRTH"},
            {"subject_id": subject, "time": None, "code": "GENDER//F"},
            {"subject_id": subject, "time": BEFORE, "code": code},
            {"subject_id": subject, "time": ADMITTED, "code": "Visit//IP"},
        ]
    write_shard(folder / "meds/data/0.parquet", rows)
    return MedsFolder(MedsMapping.model_validate({"kind": "meds", "path": "meds"}), folder=folder)


def plan(codes: list[str]) -> StudyPlan:
    feature = {
        "kind": "numeric",
        "name": "heart_failure",
        "description": "Heart failure in the year before",
        "codes": codes,
        "unit": "1",
        "plausible_range": [0, 1],
        "clip": [0, 1],
        "aggregate": "any",
        "missing": "none_allowed",
    }
    return plan_for_events(features__1=feature)


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        (["ICD10CM/I50*"], [1, 1, 1, 0, 0, 0]),
        (["ICD10CM/I50.*"], [1, 1, 1, 0, 0, 0]),
        (["ICD10CM/I50.9*"], [1, 1, 0, 0, 0, 0]),
        (["ICD10CM/I5*", "ICD10/I50*", "ICD9CM/428*"], [1, 1, 1, 1, 1, 1]),
        (["ICD10CM/I50.9"], [1, 0, 0, 0, 0, 0]),
        (["ICD10CM/I51*"], [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_star_finds_every_recorded_code_that_begins_so(
    tmp_path: Path, codes: list[str], found: list[int]
) -> None:
    (tmp_path / "scratch").mkdir()
    patients = read_event_patients(plan(codes), meds(tmp_path), scratch=tmp_path / "scratch")
    assert patients.table.subject_ids == ("1", "2", "3", "4", "5", "6")
    assert patients.table.numeric["heart_failure"].tolist() == found


def test_criteria_and_labels_know_stars_too(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    base = plan(["LOINC/2160-0"])
    criterion = {"description": "Heart failure", "codes": ["ICD10CM/I50*"], "days_before": 365}
    cohort = base.cohort.model_dump(mode="json") | {"require": [criterion]}
    asked = plan_for_events(cohort=cohort)
    found = read_event_patients(asked, meds(tmp_path), scratch=tmp_path / "scratch")
    assert found.table.subject_ids == ("1", "2", "3")


def test_vocabulary_tables_are_asked_for_the_code_without_its_star(tmp_path: Path) -> None:
    base = plan(["ATC/C10AA*", "LOINC/2160-0"])
    with open_local(scratch=tmp_path) as connection:
        connection.execute("CREATE TABLE events AS SELECT 'ATC/C10AA05' AS code")
        asked = asked_of_source(base)
        known = {code: frozenset({code, "RxNorm/83367"}) for code in asked}
        below = narrower_of_plan(base, known, connection)
        statins = below(frozenset({"ATC/C10AA*"}))
        assert below(frozenset({"LOINC/2160-0"})) == {
            "LOINC/2160-0": {"LOINC/2160-0", "RxNorm/83367"}
        }
    assert statins == {"ATC/C10AA*": {"ATC/C10AA", "RxNorm/83367", "ATC/C10AA05"}}
    assert asked >= {"ATC/C10AA", "LOINC/2160-0", "MEDS/DEATH", "Visit/IP"}
