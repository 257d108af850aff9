"""The four hospitals of the demo: UCI heart disease when it is there, else generated patients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from simulations.deployment import DemoSite
from simulations.monitored_months import write_dated
from simulations.population import COLUMNS, FOUR_HOSPITALS, generate_rows

DATA_VARIABLE: Final = "COHORTIUM_DATA"
_POPULATION_SEED: Final = 1

# Site id, organisation, file, declared cohort size. Public sizes, rounded (UCI 45).
_UCI_SITES: Final = (
    ("cleveland", "Cleveland Clinic Foundation", "processed.cleveland.data", 300),
    ("budapest", "Hungarian Institute of Cardiology, Budapest", "processed.hungarian.data", 290),
    ("zurich", "University Hospitals Zurich and Basel", "processed.switzerland.data", 120),
    ("long-beach", "VA Medical Center, Long Beach", "processed.va.data", 200),
)

_UCI_COLUMNS: Final = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang",
    "oldpeak", "slope", "ca", "thal", "num",
)  # fmt: skip
_TRAINED_YEAR: Final = 2020
"""Of the index dates, which these tables do not have: any year before the months after training."""

_LIMITS: Final = """\
[limits]
epsilon_per_study = 4.0
epsilon_total = 8.0
delta_total = 1e-3
cohort_size_min = 50
"""

_UCI_SOURCE: Final = """\
[source]
kind = "table"
path = "{path}"
subject_id = "patient_id"
index_date_column = "index_date"
missing_values = ["?"]

[source.label]
column = "num"
positive = ["1", "2", "3", "4"]
negative = ["0"]

[source.features]
age = {{ column = "age", unit = "a" }}
sex = {{ column = "sex", values = {{ "0" = "female", "1" = "male" }} }}
resting_bp = {{ column = "trestbps", unit = "mm[Hg]" }}
cholesterol = {{ column = "chol", unit = "mg/dL", missing_values = ["0"] }}
fasting_blood_sugar = {{ column = "fbs", values = {{ "0" = "normal", "1" = "high" }} }}
max_heart_rate = {{ column = "thalach", unit = "/min" }}
exercise_angina = {{ column = "exang", values = {{ "0" = "no", "1" = "yes" }} }}
st_depression = {{ column = "oldpeak", unit = "mm" }}

[source.features.chest_pain_type]
column = "cp"

[source.features.chest_pain_type.values]
"1" = "typical_angina"
"2" = "atypical_angina"
"3" = "non_anginal_pain"
"4" = "asymptomatic"

[source.features.resting_ecg]
column = "restecg"
values = {{ "0" = "normal", "1" = "st_t_abnormality", "2" = "lv_hypertrophy" }}
"""

_GENERATED_SOURCE: Final = """\
[source]
kind = "table"
path = "{path}"
subject_id = "patient_id"
index_date_column = "index_date"

[source.label]
column = "heart_disease"
positive = ["1"]
negative = ["0"]

[source.features]
age = {{ column = "age", unit = "a" }}
sex = {{ column = "sex", values = {{ female = "female", male = "male" }} }}
resting_bp = {{ column = "resting_bp", unit = "mm[Hg]" }}
cholesterol = {{ column = "cholesterol", unit = "mg/dL" }}
max_heart_rate = {{ column = "max_heart_rate", unit = "/min" }}
exercise_angina = {{ column = "exercise_angina", values = {{ no = "no", yes = "yes" }} }}
st_depression = {{ column = "st_depression", unit = "mm" }}

[source.features.chest_pain_type]
column = "chest_pain_type"

[source.features.chest_pain_type.values]
typical_angina = "typical_angina"
atypical_angina = "atypical_angina"
non_anginal_pain = "non_anginal_pain"
asymptomatic = "asymptomatic"

[source.features.fasting_blood_sugar]
column = "fasting_blood_sugar"
values = {{ normal = "normal", high = "high" }}

[source.features.resting_ecg]
column = "resting_ecg"

[source.features.resting_ecg.values]
normal = "normal"
st_t_abnormality = "st_t_abnormality"
lv_hypertrophy = "lv_hypertrophy"
"""


def uci_folder() -> Path | None:
    """Return the folder of the UCI heart disease files, or None when it is not there."""
    root = Path(os.environ.get(DATA_VARIABLE, "../shared/data"))
    folder = (root / "heart_uci").resolve()
    is_whole = all((folder / file).is_file() for _, _, file, _ in _UCI_SITES)
    return folder if is_whole else None


def _uci_table(path: Path, raw: Path) -> Path:
    """Write a UCI file with patients' numbers and dates, as a hospital's table has them."""
    lines = raw.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(_UCI_COLUMNS, line.split(","), strict=True)) for line in lines if line]
    write_dated(path, _UCI_COLUMNS, rows, year=_TRAINED_YEAR)
    return path.resolve()


def heart_sites(folder: Path, *, uci: Path | None) -> tuple[DemoSite, ...]:
    """Return the four hospitals.

    Args:
        folder: where each hospital's table is written; months after training are added to it.
        uci: folder of the UCI files, or None for generated patients.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if uci is not None:
        return tuple(
            DemoSite(
                site_id,
                organisation,
                size,
                _UCI_SOURCE.format(path=_uci_table(folder / f"{site_id}.csv", uci / file)),
                _LIMITS,
            )
            for site_id, organisation, file, size in _UCI_SITES
        )
    sites: list[DemoSite] = []
    for hospital in FOUR_HOSPITALS:
        path = folder / f"{hospital.site_id}.csv"
        rows = generate_rows(hospital, seed=_POPULATION_SEED)
        write_dated(path, COLUMNS, rows, year=_TRAINED_YEAR)
        sites.append(
            DemoSite(
                hospital.site_id,
                hospital.organisation,
                hospital.patients // 10 * 10,
                _GENERATED_SOURCE.format(path=path.resolve()),
                _LIMITS,
            )
        )
    return tuple(sites)
