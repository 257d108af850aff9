"""Generated hospitals counted again from the CSV files, with pandas and textbook conversions."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas

from simulations.populations import (
    CaseMix,
    Coding,
    Disparity,
    Drift,
    Form,
    GeneratedPatients,
    Hospital,
    Missing,
    Population,
)
from simulations.populations.site_files import read_source
from site_client.sources.source_mapping import SourceMapping

PLAN: Final = Path(__file__).parents[2] / "simulations/plans/generated-patients.toml"

EVERY_DIAL: Final = Hospital(
    site_id="every-dial",
    patients=300,
    log_odds=0.3,
    case_mix=CaseMix(age_mean_years=60, male_fraction=0.4, severity=0.2, stays_mean=2.2),
    coding=Coding(
        diagnoses="ICD10CM",
        diagnoses_before="SNOMED",
        changed_on=date(2022, 3, 1),
        icd_dots=False,
        diagnoses_unrecorded=0.1,
        drugs="ATC",
        loinc={"creatinine": {"2160-0": 2, "38483-4": 1}, "glucose": {"2345-7": 1, "2339-0": 1}},
        unmapped=0.03,
    ),
    units={"glucose": "mmol/L", "temperature": "[degF]", "systolic_bp": "kPa"},
    missing={"sodium": Missing(share=0.2, informative=0.5), "hemoglobin": Missing(share=0.3)},
    label_delay_days=40,
    drift=(
        Drift(begins=date(2022, 9, 1), units={"creatinine": "umol/L", "hemoglobin": "mmol/L"}),
        Drift(begins=date(2023, 1, 1), over_days=100, severity=0.5, weights={"age": 0.5}),
    ),
    disparities=(Disparity(group="female", missing=0.1, diagnoses_unrecorded=0.2, log_odds=0.2),),
)
OWN_CODES: Final = Hospital(
    site_id="own-codes",
    patients=150,
    coding=Coding(local_codes=True, diagnoses="ICD9CM", unmapped=0.05),
    units={"hemoglobin": "g/L", "sodium": "meq/L", "creatinine": "umol/L"},
)

# What a hospital's code means, and how its unit becomes the plan's: from the units' definitions and
# molar masses of 113.12 (creatinine), 180.156 (glucose) and 16,114.5 g/mol (Hb monomer).
_NAMES: Final = {
    "LOINC:2160-0": "creatinine",
    "LOINC:38483-4": "creatinine",
    "LOINC:14682-9": "creatinine",
    "LOINC:2345-7": "glucose",
    "LOINC:2339-0": "glucose",
    "LOINC:14749-6": "glucose",
    "LOINC:718-7": "hemoglobin",
    "LOINC:2951-2": "sodium",
    "LOINC:8480-6": "systolic_bp",
    "LOINC:8867-4": "heart_rate",
    "LOINC:8310-5": "temperature",
    "GEN-CREATININE": "creatinine",
    "GEN-GLUCOSE": "glucose",
    "GEN-HEMOGLOBIN": "hemoglobin",
    "GEN-SODIUM": "sodium",
    "GEN-SYSTOLIC-BP": "systolic_bp",
    "GEN-HEART-RATE": "heart_rate",
    "GEN-TEMPERATURE": "temperature",
}
_IN_THE_PLANS_UNIT: Final = {
    ("creatinine", "umol/L"): lambda x: x * 113.12 / 10_000,
    ("glucose", "mmol/L"): lambda x: x * 18.0156,
    ("hemoglobin", "g/L"): lambda x: x / 10,
    ("hemoglobin", "mmol/L"): lambda x: x * 1.61145,
    ("systolic_bp", "kPa"): lambda x: x * 1000 / 133.322,
    ("temperature", "[degF]"): lambda x: (x - 32) / 1.8,
}


def write(hospital: Hospital, folder: Path, form: Form, *, seed: int = 1) -> SourceMapping:
    """Write a hospital and return the `[source]` beside its data."""
    GeneratedPatients(hospital, seed=seed).write(folder, form)
    return read_source(folder)


@cache
def truth(hospital: str, *, seed: int = 1) -> pandas.DataFrame:
    """Return what is true of a hospital's stays, by its dials as JSON."""
    patients = GeneratedPatients(Hospital.model_validate_json(hospital), seed=seed)
    return patients.truth().to_pandas()


def truth_of(hospital: Hospital, *, seed: int = 1) -> pandas.DataFrame:
    """Return what is true of a hospital's stays."""
    return truth(hospital.model_dump_json(), seed=seed)


def measured(folder: Path) -> pandas.DataFrame:
    """Return patient, at, name and value in the plan's unit of every measurement that is mapped."""
    frame = pandas.read_csv(folder / "data/measurement.csv", dtype={"patient": str})
    frame["at"] = pandas.to_datetime(frame["at"])
    frame["name"] = frame["code"].map(_NAMES)
    frame = frame[frame["name"].notna()].copy()
    for (name, unit), convert in _IN_THE_PLANS_UNIT.items():
        there = (frame["name"] == name) & (frame["unit"] == unit)
        frame.loc[there, "value"] = convert(frame.loc[there, "value"])
    return frame


def table(folder: Path, name: str) -> pandas.DataFrame:
    """Return one CSV file, times read."""
    frame = pandas.read_csv(folder / f"data/{name}.csv", dtype={"patient": str})
    for column in frame.columns.intersection(["at", "begins_at", "ends_at", "died_at", "born_on"]):
        frame[column] = pandas.to_datetime(frame[column])
    return frame


def columns_of(rows: Any) -> pandas.DataFrame:
    """Return a patient table as a frame."""
    numeric = {name: np.asarray(column) for name, column in rows.numeric.items()}
    return pandas.DataFrame(
        {"subject_id": rows.subject_ids, **numeric, **rows.levels, "label": rows.label}
    )


def one(hospital: Hospital, *, seed: int = 1) -> Population:
    """Return a population of one hospital."""
    return Population([hospital], seed=seed)
