"""One plan gives one table of rows from OMOP and from MEDS of the same hundred real patients.

See `tests/lib/mimic_demo.py` for what the published OMOP tables lack. Where the two conversions of
MIMIC-IV differ, the difference is derived here from the files by pandas, row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.sources.events import DEATH
from site_client.sources.omop import OmopFolder
from tests.lib import mimic_demo

pytestmark = pytest.mark.slow

Rows = dict[tuple[str, float], dict[str, float]]
"""By patient and age in days at the index date, which name a discharge: features and label."""


@pytest.fixture(scope="module")
def meds() -> pandas.DataFrame:
    return mimic_demo.meds_frame()


@pytest.fixture(scope="module")
def folder(meds: pandas.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    mimic_demo.write_omop(folder / "omop", meds)
    return folder


def rows_of(found: EventPatients, subjects: dict[str, str] | None = None) -> Rows:
    table = found.table
    columns: dict[str, Any] = {**table.numeric, **table.levels, "label": table.label}
    rows: Rows = {}
    for place, own in enumerate(table.subject_ids):
        row = {name: float(column[place]) for name, column in columns.items()}
        key = (subjects[own] if subjects else own, row["age"])
        assert key not in rows
        rows[key] = row
    return rows


def both(folder: Path, meds: pandas.DataFrame, tmp_path: Path, **changes: object) -> list[Rows]:
    person = mimic_demo.omop_frame("person")
    subjects = dict(zip(person["person_id"], person["subject"], strict=True))
    plan = mimic_demo.plan(**changes)
    omop = OmopFolder(folder / "omop", data_until=mimic_demo.UNTIL)
    return [
        rows_of(read_event_patients(plan, omop, scratch=tmp_path), subjects),
        rows_of(read_event_patients(plan, mimic_demo.meds_source(meds), scratch=tmp_path)),
    ]


def discharges(meds: pandas.DataFrame) -> pandas.DataFrame:
    """Return each discharge with its key, and when the patient died by either file."""
    born = meds[meds["code"] == "MEDS_BIRTH"].set_index("subject")["time"]
    died = meds[meds["code"] == "MEDS_DEATH"].set_index("subject")["time"]
    omop = mimic_demo.omop_frame("death").set_index("subject")["death_datetime"]
    frame = meds[meds["code"].str.startswith("HOSPITAL_DISCHARGE//")][["subject", "time"]]
    age = frame["time"] - frame["subject"].map(born)
    return frame.assign(
        key=list(zip(frame["subject"], age / pandas.Timedelta(days=1), strict=True)),
        died=frame["subject"].map(died),
        died_in_omop=pandas.to_datetime(frame["subject"].map(omop)),
    )


def test_rows_features_and_label_are_equal_but_for_two_differences_of_the_conversions(
    folder: Path, meds: pandas.DataFrame, tmp_path: Path
) -> None:
    omop, of_meds = both(folder, meds, tmp_path)
    all_of = discharges(meds)
    # 1. OMOP has one class for "ambulatory observation" and for a day at the clinic: the plan
    #    cannot ask for those five stays without 577 visits that were none.
    visits = mimic_demo.omop_frame("visit_occurrence")
    clinic = visits[visits["visit_concept_id"] == "38004207"]
    moments = set(
        zip(clinic["subject"], pandas.to_datetime(clinic["visit_end_datetime"]), strict=True)
    )
    ends = zip(all_of["subject"], all_of["time"], strict=True)
    ambulatory = set(all_of["key"][[end in moments for end in ends]])
    # 2. Of who died in the hospital OMOP has the discharge as the time of death, MEDS a time that
    #    may be later on that day; who died after the index date has a row.
    later = (all_of["died_in_omop"] <= all_of["time"]) & (all_of["died"] > all_of["time"])
    died_later = set(all_of["key"][later])
    assert (len(ambulatory), len(died_later)) == (5, 4)
    assert set(of_meds) - set(omop) == ambulatory | died_later
    assert set(omop) <= set(of_meds)
    assert len(omop) == 255
    for key, row in omop.items():
        for name, value in row.items():
            np.testing.assert_allclose(
                value, of_meds[key][name], rtol=1e-9, atol=1e-9, err_msg=f"{key} {name}"
            )


def test_the_rows_hold_many_values_of_every_feature(
    folder: Path, meds: pandas.DataFrame, tmp_path: Path
) -> None:
    omop, _ = both(folder, meds, tmp_path)
    for name in next(iter(omop.values())):
        present = [row[name] for row in omop.values() if not np.isnan(row[name])]
        assert len(present) > 120, name
        assert len(set(present)) > 1, name


def test_labels_of_death_differ_for_who_died_elsewhere_and_for_nobody_else(
    folder: Path, meds: pandas.DataFrame, tmp_path: Path
) -> None:
    """OMOP's demo has the 15 deaths in the hospital, MEDS also 16 from the state's records."""
    year = pandas.Timedelta(days=365)
    label = {
        "name": "death",
        "description": "Death within a year",
        "codes": [DEATH],
        "prediction_window_days": year.days,
    }
    omop, of_meds = both(folder, meds, tmp_path, label=label)
    all_of = discharges(meds)
    after = all_of["died"] - all_of["time"]
    in_a_year = (after > pandas.Timedelta(0)) & (after <= year)
    elsewhere = set(all_of["key"][in_a_year & all_of["died_in_omop"].isna()])
    differ = {key for key, row in omop.items() if row["label"] != of_meds[key]["label"]}
    assert differ == elsewhere & set(omop)
    assert len(differ) > 10
    dead = {key for key, row in of_meds.items() if row["label"] == 1}
    assert dead == set(all_of["key"][in_a_year]) & set(of_meds)
