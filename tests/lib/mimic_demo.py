"""The 100 patients of the MIMIC-IV demo twice: as OMOP tables and as MEDS events.

The OMOP demo as published lacks three things that this adds, and says so: its `measurement` table
(written here from the values of the MEDS file: real patients, a table made by us); the rows of
`concept` for the site's visit classes, diagnoses and measurements; their codes are those that the
tables' own source columns hold. Everything else is read from both as it was published.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas

from common.study.plan import StudyPlan
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.omop import OmopFolder
from tests.lib.data_sets import data_set
from tests.lib.plans import make_plan

UNTIL: Final = datetime.date(2300, 1, 1)
"""MIMIC's dates are shifted into the future."""
HOSPITAL_CLASSES: Final = {"9201": "IP", "262": "ERIP", "8870": "8870", "581385": "581385"}
HOSPITAL_CLASSES["8883"] = "8883"
"""`visit_concept_id` of the demo's hospital stays to the class in the event table."""

MEASURED: Final = {
    # MIMIC's item: LOINC, the unit as MIMIC writes it, the plan's unit, aggregate.
    "50912": ("LOINC/2160-0", "mg/dL", "mg/dL", "last"),
    "50983": ("LOINC/2951-2", "mEq/L", "meq/L", "min"),
    "50971": ("LOINC/2823-3", "mEq/L", "meq/L", "max"),
    "51006": ("LOINC/3094-0", "mg/dL", "mg/dL", "first"),
    "51222": ("LOINC/718-7", "g/dL", "g/dL", "mean"),
    "51265": ("LOINC/777-3", "K/uL", "10*3/uL", "median"),
    "50931": ("LOINC/2345-7", "mg/dL", "mg/dL", "slope"),
    "220045": ("LOINC/8867-4", "bpm", "1", "count"),
    "220179": ("LOINC/8480-6", "mmHg", "mm[Hg]", "mean"),
    "220210": ("LOINC/9279-1", "insp/min", "d", "time_since"),
    "220277": ("LOINC/59408-5", "%", "%", "min"),
    "223761": ("LOINC/8310-5", "°F", "Cel", "max"),
}
DIAGNOSES: Final = ("ICD9CM/4019", "ICD10CM/E785", "ICD9CM/2724", "ICD10CM/E039", "ICD9CM/5849")
VERSIONS: Final = {"ICD9CM": "9", "ICD10CM": "10"}
CLINICAL: Final = ("person", "death", "visit_occurrence", "condition_occurrence")
OWN_CONCEPTS: Final = 2_100_000_000


def omop_frame(table: str) -> pandas.DataFrame:
    """Return a published OMOP table as text, with the MEDS subject of each row."""
    folder = data_set("omop_mimic4_demo")
    frame = pandas.read_csv(folder / f"{table}.csv", dtype=str, keep_default_na=False)
    person = pandas.read_csv(folder / "person.csv", dtype=str)
    subjects = dict(zip(person["person_id"], person["person_source_value"], strict=True))
    return frame.assign(subject=frame["person_id"].map(subjects))


def meds_frame() -> pandas.DataFrame:
    """Return the published MEDS events."""
    file = data_set("meds_mimic4_demo") / "mimic_iv_demo_meds_events.parquet"
    frame = pandas.read_parquet(file)
    return frame.assign(subject=frame["subject_id"].astype(str))


def write_omop(folder: Path, meds: pandas.DataFrame) -> OmopFolder:
    """Write the OMOP folder with what the published one lacks, and return its reader."""
    folder.mkdir()
    for table in CLINICAL:
        shutil.copy(data_set("omop_mimic4_demo") / f"{table}.csv", folder / f"{table}.csv")
    concepts = [_concept(number, "OMOP", number) for number in ("8870", "581385", "8883")]
    items = {item: str(OWN_CONCEPTS + place) for place, item in enumerate(MEASURED)}
    concepts += [_concept(items[item], *row[0].split("/", 1)) for item, row in MEASURED.items()]
    conditions = omop_frame("condition_occurrence")
    for diagnosis in DIAGNOSES:
        vocabulary, code = diagnosis.split("/", 1)
        same = conditions[conditions["condition_source_value"].str.strip() == code]
        [number] = same["condition_source_concept_id"].unique()
        concepts.append(_concept(number, vocabulary, code))
    pandas.DataFrame(concepts).to_csv(folder / "concept.csv", index=False)
    _measurement(meds, items).to_csv(folder / "measurement.csv", index=False)
    return OmopFolder(folder, data_until=UNTIL)


def _concept(number: str, vocabulary: str, code: str) -> dict[str, str]:
    return {
        "concept_id": number,
        "vocabulary_id": vocabulary,
        "concept_code": code,
        "standard_concept": "S",
    }


def _measurement(meds: pandas.DataFrame, items: dict[str, str]) -> pandas.DataFrame:
    person = omop_frame("person")
    persons = dict(zip(person["subject"], person["person_id"], strict=True))
    parts = meds["code"].str.split("//", expand=True)
    rows = meds[(parts[0] == "LAB") & parts[1].isin(list(MEASURED))]
    unit = parts.loc[rows.index, 2]
    return pandas.DataFrame(
        {
            "person_id": rows["subject"].map(persons),
            "measurement_concept_id": parts.loc[rows.index, 1].map(items),
            "measurement_date": rows["time"].dt.strftime("%Y-%m-%d"),
            "measurement_datetime": rows["time"].dt.strftime("%Y-%m-%d %H:%M:%S.%f"),
            # The shortest decimal of a 32-bit number is what the hospital recorded.
            "value_as_number": [
                "" if np.isnan(value) else str(value) for value in rows["value"].to_numpy()
            ],
            "unit_source_value": unit.mask(unit == "UNK", ""),
        }
    )


def meds_source(meds: pandas.DataFrame) -> MedsFolder:
    """Return the reader of the MEDS file as published, with its code map."""
    code_map = {f"LAB//{item}": row[0] for item, row in MEASURED.items()}
    for diagnosis in DIAGNOSES:
        vocabulary, code = diagnosis.split("/", 1)
        code_map[f"DIAGNOSIS//ICD//{VERSIONS[vocabulary]}//{code}"] = diagnosis
    for code in meds["code"].unique():
        if code.startswith("HOSPITAL_DISCHARGE//"):
            code_map[code] = "VisitEnd/IP"
    record: dict[str, Any] = {
        "kind": "meds",
        "path": "mimic_iv_demo_meds_events.parquet",
        "columns": {"numeric_value": "value"},
        "code_map": code_map,
        "unit_in_code": ["LAB//<code>//<unit>"],
        "unit_missing": ["UNK"],
        "data_until": UNTIL,
    }
    return MedsFolder(MedsMapping.model_validate(record), folder=data_set("meds_mimic4_demo"))


def plan(**changes: Any) -> StudyPlan:
    """Return the plan: at each discharge, whether the patient leaves a hospital again in a year.

    The age in days names the row: together with the patient it says the discharge's moment.
    """
    ends = [f"VisitEnd/{name}" for name in HOSPITAL_CLASSES.values()]
    features: list[dict[str, Any]] = [
        _numeric("age", "LOINC/30525-0", "d", "last"),
        *(_numeric(f"item_{item}", row[0], row[2], row[3]) for item, row in MEASURED.items()),
        *(
            _numeric(f"has_{code.split('/')[1].lower()}", code, "1", "any", 36_500)
            for code in DIAGNOSES
        ),
        {
            "kind": "categorical",
            "name": "sex",
            "description": "Sex",
            "codes": ["LOINC/46098-0"],
            "levels": ["female", "male"],
        },
    ]
    cohort = {
        "description": "Adults who leave the hospital",
        "age_years_min": 18,
        "age_years_max": 110,
        "index_date": {"description": "A discharge", "codes": ends, "occurrence": "every"},
    }
    label = {
        "name": "another_discharge",
        "description": "Another stay that ends within a year",
        "codes": ends,
        "prediction_window_days": 365,
    }
    return make_plan(**{"features": features, "cohort": cohort, "label": label, **changes})


def _numeric(name: str, code: str, unit: str, aggregate: str, days: int = 30) -> dict[str, Any]:
    return {
        "kind": "numeric",
        "name": name,
        "description": name,
        "codes": [code],
        "unit": unit,
        "aggregate": aggregate,
        "window_days": days,
        "plausible_range": [-100_000, 100_000],
        "clip": [0, 1000],
    }
