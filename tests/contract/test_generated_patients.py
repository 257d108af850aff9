"""One population in four forms: every reader gives what the truth and a recount say."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas
import pytest

from common.clock import SystemClock
from common.errors import DataSourceError
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from simulations.patient_source import PatientSource
from simulations.populations import Drift, Form, GeneratedPatients, Hospital, patients
from simulations.populations.site_files import read_source
from site_client.config import SitePaths
from site_client.preflight import check_site
from site_client.sources.table import PatientTable
from tests.lib.generated import (
    EVERY_DIAL,
    OWN_CODES,
    PLAN,
    columns_of,
    measured,
    table,
    truth_of,
    write,
)
from tests.lib.plan_by_pandas import AGGREGATES
from tests.lib.plans import make_plan

HOSPITALS = {hospital.site_id: hospital for hospital in (EVERY_DIAL, OWN_CODES)}
WINDOWS = {
    # name: catalogue's code, unit, analyte, aggregate, days.
    "creatinine_mean": (("2160-0", "38483-4", "14682-9"), "mg/dL", "Creatinine", "mean", 400),
    "glucose_max": (("2345-7", "2339-0", "14749-6"), "mg/dL", "Glucose", "max", 900),
    "hemoglobin_slope": (("718-7",), "g/dL", "Hemoglobin", "slope", 3),
    "sodium_count": (("2951-2",), "1", None, "count", 300),
    "systolic_bp_min": (("8480-6",), "mm[Hg]", None, "min", 1),
    "heart_rate_median": (("8867-4",), "/min", None, "median", 200),
    "temperature_first": (("8310-5",), "Cel", None, "first", 200),
    "sodium_since": (("2951-2",), "d", None, "time_since", 400),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated")
    for hospital in HOSPITALS.values():
        for form in Form:
            write(hospital, root / hospital.site_id / form, form)
    return root


def _rows(folder: Path, plan: StudyPlan) -> PatientTable:
    return PatientSource(read_source(folder), folder=folder).rows(plan)


@pytest.mark.parametrize("site_id", HOSPITALS)
@pytest.mark.parametrize("form", Form)
def test_each_form_gives_the_cohort_features_and_labels_that_the_truth_says(
    written: Path, site_id: str, form: Form
) -> None:
    found = columns_of(_rows(written / site_id / form, read_plan(PLAN)))
    true = truth_of(HOSPITALS[site_id])
    first = true[true["stay"] == 1].sort_values("subject_id").reset_index(drop=True)
    assert found["subject_id"].tolist() == first["subject_id"].tolist()
    assert (found["age"] == first["age"]).all()
    assert (found["sex"] == (first["sex"] == "male")).all()
    words = ["every day", "former", "never"]
    assert [words[level] for level in found["tobacco_smoking"]] == first["tobacco_smoking"].tolist()
    for name in ("creatinine", "glucose", "hemoglobin", "sodium", "systolic_bp", "temperature"):
        one, other = found[f"{name}_last"], first[f"{name}_read"]
        assert (one.isna() == other.isna()).all(), name
        np.testing.assert_allclose(one.dropna(), other.dropna(), rtol=2e-4, err_msg=name)
        # To half of the last decimal that the hospital records, the true value itself.
        true_here = first.loc[one.notna(), name]
        half = {"creatinine": 0.0006, "glucose": 0.1, "hemoglobin": 0.06, "sodium": 0}
        tolerance = half.get(name, 0.4 if name == "systolic_bp" else 0.03)
        assert (one.dropna() - true_here).abs().max() <= tolerance + 1e-6, name
    for name in ("heart_failure", "diabetes", "chronic_pulmonary_disease"):
        assert (found[f"{name}_any"] == first[f"{name}_recorded"]).all(), name
    for name in ("anticoagulants", "statins"):
        assert (found[f"{name}_any"] == first[name]).all(), name
    assert (found["label"] == (first["dies"] & first["death_is_recorded"])).all()


def _windows_plan() -> StudyPlan:
    described = {"age": (("30525-0",), "a", None, "last", 1), **WINDOWS}
    features = [
        {
            "kind": "numeric",
            "name": name,
            "description": name,
            "codes": [f"LOINC/{code}" for code in codes],
            "unit": unit,
            "aggregate": aggregate,
            "window_days": days,
            "plausible_range": [-10_000, 10_000],
            "clip": [0, 1000],
            **({"analyte": analyte} if analyte else {}),
        }
        for name, (codes, unit, analyte, aggregate, days) in described.items()
    ]
    sex = {
        "kind": "categorical",
        "name": "sex",
        "description": "Sex",
        "codes": ["LOINC/46098-0"],
        "levels": ["female", "male"],
    }
    cohort = {
        "description": "Adults at an admission or a visit to the clinic",
        "age_years_min": 18,
        "age_years_max": 110,
        "index_date": {
            "description": "Two days after it",
            "codes": ["Visit/IP", "Visit/OP"],
            "hours_after": 48,
            "occurrence": "every",
        },
    }
    label = {
        "name": "readmission",
        "description": "Another admission within 200 days",
        "codes": ["Visit/IP"],
        "prediction_window_days": 200,
    }
    return make_plan(features=[*features, sex], cohort=cohort, label=label)


def _recounted(folder: Path) -> pandas.DataFrame:
    """Return the rows of the plan above by loops over the CSV files."""
    values, visits, people = measured(folder), table(folder, "visit"), table(folder, "patient")
    by_patient = dict(iter(values.groupby("patient")))
    nothing = values.iloc[:0]
    rows = []
    for person in people.itertuples():
        own = by_patient.get(person.patient, nothing)
        series = dict(iter(own.groupby("name")))
        seen = visits[visits["patient"] == person.patient]
        stays = seen.loc[seen["class"] == "IP", "begins_at"]
        entries = seen.loc[seen["class"].isin(["IP", "OP"]), "begins_at"]
        for index in sorted(set(entries + pandas.Timedelta(hours=48))):
            if person.died_at <= index:
                continue
            row = {"subject_id": person.patient, "sex": int(person.sex == "M")}
            within = (stays > index) & (stays <= index + pandas.Timedelta(days=200))
            row["label"] = float(within.any())
            for name, (_, _, _, aggregate, days) in WINDOWS.items():
                part = series.get(name.rpartition("_")[0], nothing)
                ago = (index - part["at"]).to_numpy() / np.timedelta64(1, "D")
                inside = (ago >= 0) & (ago < days)
                is_absent = not inside.any() and aggregate != "count"
                row[name] = (
                    np.nan
                    if is_absent
                    else AGGREGATES[aggregate](-ago[inside], part["value"].to_numpy()[inside])
                )
            rows.append(row)
    return pandas.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.parametrize("site_id", HOSPITALS)
def test_every_form_gives_windows_over_all_encounters_as_a_recount_of_the_files_does(
    written: Path, site_id: str
) -> None:
    expected = _recounted(written / site_id / Form.CSV)
    assert len(expected) > 2 * HOSPITALS[site_id].patients
    plan = _windows_plan()
    for form in Form:
        found = columns_of(_rows(written / site_id / form, plan))
        assert found["subject_id"].tolist() == expected["subject_id"].tolist(), form
        for name in ("sex", "label", *WINDOWS):
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{form} {name}"
            )


def test_all_readers_see_the_same_population_to_nine_digits(written: Path) -> None:
    plan = read_plan(PLAN)
    for site_id in HOSPITALS:
        first, *others = (columns_of(_rows(written / site_id / form, plan)) for form in Form)
        for other in others:
            pandas.testing.assert_frame_equal(first, other, rtol=1e-9)


def test_hospitals_of_several_blocks_and_of_one_patient_are_read_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patients, "BLOCK_PATIENTS", 40)
    plan = read_plan(PLAN)
    for size in (100, 1):
        hospital = Hospital(site_id=f"of-{size}", patients=size)
        true = GeneratedPatients(hospital, seed=1).truth().to_pandas()
        first = true[true["stay"] == 1].sort_values("subject_id")
        for form in Form:
            write(hospital, tmp_path / f"{form}-{size}", form)
            found = columns_of(_rows(tmp_path / f"{form}-{size}", plan))
            assert found["subject_id"].tolist() == first["subject_id"].tolist(), form
            assert found["label"].tolist() == first["dies"].astype(float).tolist(), form
            np.testing.assert_allclose(found["sodium_last"], first["sodium"], err_msg=form)


def test_a_site_check_takes_each_form_as_it_is_written(written: Path) -> None:
    for form in Form:
        home = written / OWN_CODES.site_id / form
        result = check_site(SitePaths(home), read_plan(PLAN), clock=SystemClock())
        about = {finding.question: finding for finding in result.findings}
        for question in ("site.toml is complete", "the data fit the plan"):
            assert about[question].is_ok, (form, question, about[question].answer)
        assert result.quality is not None


def test_a_unit_that_the_records_do_not_say_is_met_by_the_readers_refusal(tmp_path: Path) -> None:
    wrong = Drift(begins=date(2020, 1, 1), units={"creatinine": "umol/L"}, units_labelled=False)
    hospital = Hospital(site_id="mislabelled", patients=80, drift=(wrong,))
    for form in Form:
        write(hospital, tmp_path / form, form)
        with pytest.raises(DataSourceError, match="too many values of creatinine_last"):
            _rows(tmp_path / form, read_plan(PLAN))
    true = truth_of(hospital)
    assert (true["creatinine_read"] / true["creatinine"]).median() == pytest.approx(88.4, rel=0.01)


def test_nobody_generated_looks_like_somebody(written: Path) -> None:
    people = table(written / OWN_CODES.site_id / Form.CSV, "patient")
    assert people["patient"].str.fullmatch("99[0-9]{8}").all()
    resources = (written / OWN_CODES.site_id / Form.FHIR / "data/Patient.000.ndjson").read_text()
    assert resources.count('"HTEST"') == OWN_CODES.patients
    assert resources.count("Generated patient 99") == OWN_CODES.patients


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    hospital = Hospital(site_id="again", patients=60)
    for form in Form:
        for number, seed in enumerate((4, 4, 5)):
            write(hospital, tmp_path / f"{form}{number}", form, seed=seed)
        one, two, other = (
            [path.read_bytes() for path in sorted((tmp_path / f"{form}{number}").rglob("*.*"))]
            for number in range(3)
        )
        assert one == two, form
        assert one != other, form
