"""Comorbidities and laboratory values of the catalogue on MIMIC-IV's demonstration data."""

from __future__ import annotations

import datetime

import pandas
import pytest

from common.study.catalogue.entries import read_catalogue
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.data_sets import data_set
from tests.lib.event_plans import plan_for_events

CATALOGUE = read_catalogue()
CONDITIONS = [entry for entry in CATALOGUE.entries.values() if entry.icd10]
# MIMIC's item to LOINC, after the MIMIC Code Repository's concept map.
LABS = {
    **{"50912": "2160-0", "51006": "3094-0", "50971": "2823-3", "50983": "2951-2"},
    **{"50902": "2075-0", "50882": "1963-8", "50868": "1863-0", "50931": "2345-7"},
    **{"50893": "17861-6", "50960": "19123-9", "50970": "2777-1", "50861": "1742-6"},
    **{"50878": "1920-8", "50863": "6768-6", "50885": "1975-2", "50862": "1751-7"},
    **{"51222": "718-7", "51221": "4544-3", "51301": "6690-2", "51265": "777-3"},
    **{"51250": "787-2", "51248": "785-6", "51249": "786-4", "51277": "788-0"},
    **{"51279": "789-8", "51237": "6301-6", "51274": "5902-2", "51275": "14979-9"},
    **{"50813": "32693-4", "50818": "11557-6", "50820": "11558-4", "50821": "11556-8"},
    **{"50802": "11555-0", "50804": "34728-6", "50808": "1994-3", "50954": "2532-0"},
    **{"50910": "2157-6", "51003": "6598-7", "51214": "3255-7", "50852": "4548-4"},
}
# Grams a decilitre were once written as a percentage; which was meant is not guessed.
OTHER_UNITS = {"mchc_last"}
ICD = {"9": "ICD9CM", "10": "ICD10CM"}


@pytest.fixture(scope="module")
def frame() -> pandas.DataFrame:
    return pandas.read_parquet(
        data_set("meds_mimic4_demo") / "mimic_iv_demo_meds_events.parquet",
        columns=["subject_id", "time", "code"],
    )


@pytest.fixture(scope="module")
def patients(frame: pandas.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> EventPatients:
    """Every patient at the last discharge, when MIMIC's diagnoses are recorded."""
    code_map = {f"LAB//{item}": f"LOINC/{code}" for item, code in LABS.items()}
    for code in frame.code.unique():
        if code.startswith("DIAGNOSIS//ICD//"):
            _, _, edition, local = code.split("//")
            code_map[code] = f"{ICD[edition]}/{local}"
        if code.startswith("HOSPITAL_DISCHARGE"):
            code_map[code] = "Visit/IP"
    path = data_set("meds_mimic4_demo") / "mimic_iv_demo_meds_events.parquet"
    mapping = MedsMapping(
        kind="meds",
        path=str(path.resolve()),
        columns={"numeric_value": "value"},  # type: ignore[arg-type]
        code_map=code_map,
        unit_in_code=("LAB//<code>//<unit>",),
        unit_missing=("UNK",),
        data_until=datetime.date(2250, 1, 1),
    )
    terms = [entry.name + ".any" for entry in CONDITIONS]
    codes = {f"LOINC/{code}" for code in LABS.values()}
    measured = [entry.name for entry in CATALOGUE.entries.values() if codes & entry.codes.keys()]
    terms += [name + ".last" for name in measured]
    plan = plan_for_events(
        features=[{"from_catalogue": term, "window_days": 36_500} for term in terms],
        fairness_groups=[],
        monitoring=...,
        cohort={
            "description": "Everybody, at the last discharge",
            "age_years_max": 130,
            "index_date": {
                "description": "The last discharge",
                "codes": ["Visit/IP"],
                "occurrence": "last",
            },
        },
    )
    scratch = tmp_path_factory.mktemp("mimic")
    return read_event_patients(plan, MedsFolder(mapping, folder=scratch), scratch=scratch)


def test_comorbidities_are_those_that_a_reading_by_hand_finds(
    frame: pandas.DataFrame, patients: EventPatients
) -> None:
    diagnoses = frame.code.str.extract(r"^DIAGNOSIS//ICD//(9|10)//(.+)$")
    ten = frame.assign(local=diagnoses[1])[diagnoses[0] == "10"]
    nine = frame.assign(local=diagnoses[1])[diagnoses[0] == "9"]
    left = frame[frame.code.str.startswith("HOSPITAL_DISCHARGE")]
    died = frame[frame.code == "MEDS_DEATH"].set_index("subject_id").time
    alive = ~(left.time >= left.subject_id.map(died))  # who has died has no row at that discharge
    last = left[alive].groupby("subject_id").time.max()
    met = 0
    for entry in CONDITIONS:
        expected: set[str] = set()
        for rows, prefixes in ((ten, entry.icd10), (nine, entry.icd9cm)):
            begins = tuple(prefix.replace(".", "") for prefix in prefixes)
            hits = rows[rows.local.str.startswith(begins)] if begins else rows[:0]
            hits = hits[hits.time <= hits.subject_id.map(last)]
            expected |= {str(subject) for subject in hits.subject_id}
        column = patients.table.numeric[f"{entry.name}_any"]
        ids = patients.table.subject_ids
        found = {subject for subject, value in zip(ids, column, strict=True) if value == 1}
        assert found == expected & set(ids), entry.name
        met += bool(found)
    assert met >= 35


def test_values_of_intensive_care_are_in_the_plausible_ranges(patients: EventPatients) -> None:
    met = 0
    for name, counts in patients.variables.items():
        if name.endswith("_last") and counts.used + counts.implausible > 0:
            assert counts.implausible <= 0.002 * counts.used, name
            if name not in OTHER_UNITS:
                assert counts.other_unit <= 0.002 * counts.used, name
            met += 1
    assert met >= 38


def test_clip_bounds_cut_few_values_of_intensive_care(patients: EventPatients) -> None:
    for entry in CATALOGUE.entries.values():
        column = patients.table.numeric.get(f"{entry.name}_last")
        if column is None or entry.clip is None:
            continue
        seen = column[~pandas.isna(column)]
        outside = (seen < entry.clip[0]) | (seen > entry.clip[1])
        assert outside.sum() <= 0.1 * len(seen), entry.name
