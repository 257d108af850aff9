"""Synthetic heart patients from a stated risk model, in hospitals that differ.

The truth is known: the probability of heart disease is `RISK` applied to the patient's true values.
Hospitals differ in size, in case mix (age, sex, severity) and in what they do not record. The
values imitate no real patient; they use the columns of the UCI heart disease data so that the
example plan fits both.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from common.errors import StoreError

COLUMNS: Final = (
    "age",
    "sex",
    "chest_pain_type",
    "resting_bp",
    "cholesterol",
    "fasting_blood_sugar",
    "resting_ecg",
    "max_heart_rate",
    "exercise_angina",
    "st_depression",
    "heart_disease",
)

RISK: Final[dict[str, float]] = {
    "intercept": -2.3,
    "age_per_decade_over_55": 0.35,
    "male": 0.9,
    "asymptomatic_chest_pain": 1.3,
    "resting_bp_per_10_over_130": 0.08,
    "cholesterol_per_50_over_240": 0.15,
    "max_heart_rate_per_20_over_145": -0.45,
    "exercise_angina": 0.9,
    "st_depression_per_mm": 0.6,
}
"""Log-odds of heart disease: a sum of these weights times the patient's true values."""


@dataclass(frozen=True)
class Hospital:
    """How one virtual hospital differs.

    Args:
        site_id: its id in the study.
        organisation: its name.
        patients: number of patients.
        age_mean_years: mean age of those referred.
        male_fraction: share of men, 0 to 1.
        severity: shift of the severity of symptoms, in standard deviations.
        missing: share of values not recorded, by column.
    """

    site_id: str
    organisation: str
    patients: int
    age_mean_years: float
    male_fraction: float
    severity: float
    missing: dict[str, float] = field(default_factory=dict)


FOUR_HOSPITALS: Final = (
    Hospital("northfield", "Northfield General (generated)", 310, 54, 0.66, 0.0),
    Hospital(
        "eastgate",
        "Eastgate University Hospital (generated)",
        290,
        48,
        0.72,
        -0.4,
        {"cholesterol": 0.08, "fasting_blood_sugar": 0.03},
    ),
    Hospital(
        "lakeside",
        "Lakeside Clinic (generated)",
        130,
        55,
        0.85,
        1.6,
        {"cholesterol": 1.0, "fasting_blood_sugar": 0.6},
    ),
    Hospital(
        "southmoor",
        "Southmoor Veterans Hospital (generated)",
        200,
        59,
        0.95,
        1.0,
        {"resting_bp": 0.28, "max_heart_rate": 0.26, "st_depression": 0.28, "cholesterol": 0.25},
    ),
)
"""Four hospitals shaped after the UCI centres: sizes, prevalence and gaps in recording differ."""


def generate_rows(hospital: Hospital, *, seed: int) -> list[dict[str, str]]:
    """Return one row of text per patient; an empty string is a value not recorded.

    Args:
        hospital: how this hospital differs.
        seed: the population is a function of the hospital and this number.
    """
    rng = np.random.default_rng([seed, *hospital.site_id.encode()])
    return [_one_patient(hospital, rng) for _ in range(hospital.patients)]


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows with a `patient_id` column and a header line; raises `StoreError`."""
    try:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=("patient_id", *COLUMNS))
            writer.writeheader()
            for number, row in enumerate(rows, start=1):
                writer.writerow({"patient_id": f"P{number:05d}", **row})
    except OSError as error:
        raise StoreError(
            "the generated population cannot be written",
            expected=f"a writable file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="free disk space or choose another folder",
        ) from None


def risk(values: dict[str, float]) -> float:
    """Return the true probability of heart disease of a patient with these true values."""
    log_odds = (
        RISK["intercept"]
        + RISK["age_per_decade_over_55"] * (values["age"] - 55) / 10
        + RISK["male"] * values["male"]
        + RISK["asymptomatic_chest_pain"] * values["asymptomatic"]
        + RISK["resting_bp_per_10_over_130"] * (values["resting_bp"] - 130) / 10
        + RISK["cholesterol_per_50_over_240"] * (values["cholesterol"] - 240) / 50
        + RISK["max_heart_rate_per_20_over_145"] * (values["max_heart_rate"] - 145) / 20
        + RISK["exercise_angina"] * values["exercise_angina"]
        + RISK["st_depression_per_mm"] * values["st_depression"]
    )
    return float(1 / (1 + np.exp(-log_odds)))


def _one_patient(hospital: Hospital, rng: np.random.Generator) -> dict[str, str]:
    severity = rng.normal(hospital.severity, 1.0)
    age = float(np.clip(rng.normal(hospital.age_mean_years, 9), 28, 79).round())
    male = float(rng.random() < hospital.male_fraction)
    asymptomatic = float(rng.random() < 1 / (1 + np.exp(-(0.9 * severity - 0.1))))
    angina = float(rng.random() < 1 / (1 + np.exp(-(severity - 0.7))))
    values = {
        "age": age,
        "male": male,
        "asymptomatic": asymptomatic,
        "resting_bp": float(np.clip(rng.normal(132, 17), 90, 200).round()),
        "cholesterol": float(np.clip(rng.normal(245, 50), 120, 420).round()),
        "max_heart_rate": float(
            np.clip(rng.normal(208 - 1.1 * age - 7 * severity, 18), 70, 202).round()
        ),
        "exercise_angina": angina,
        "st_depression": float(np.clip(rng.normal(0.7 + 0.6 * severity, 0.8), 0, 6).round(1)),
    }
    disease = rng.random() < risk(values)
    row = {
        "age": f"{age:.0f}",
        "sex": "male" if male else "female",
        "chest_pain_type": "asymptomatic"
        if asymptomatic
        else str(rng.choice(["typical_angina", "atypical_angina", "non_anginal_pain"])),
        "resting_bp": f"{values['resting_bp']:.0f}",
        "cholesterol": f"{values['cholesterol']:.0f}",
        "fasting_blood_sugar": "high" if rng.random() < 0.15 else "normal",
        "resting_ecg": str(rng.choice(["normal", "st_t_abnormality", "lv_hypertrophy"])),
        "max_heart_rate": f"{values['max_heart_rate']:.0f}",
        "exercise_angina": "yes" if angina else "no",
        "st_depression": f"{values['st_depression']:.1f}",
    }
    for column, share in hospital.missing.items():
        if rng.random() < share:
            row[column] = ""
    return row | {"heart_disease": "1" if disease else "0"}
