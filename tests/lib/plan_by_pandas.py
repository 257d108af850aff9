"""A plan over Synthea's events, and its rows computed the naive way from a list of events.

Shares no code with the product: windows, aggregates, ages and labels are pandas and loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas

from common.study.plan import StudyPlan
from site_client.features.event_patients import EventPatients
from tests.lib.plans import make_plan

VISITS: Final = ("Visit/OP", "Visit/IP", "Visit/ER")
LABEL: Final = ("Visit/ER",)
LABEL_DAYS: Final = 1000
NUMERIC: Final = {
    # name: codes, unit, aggregate, days.
    "systolic": (("LOINC/8480-6",), "mm[Hg]", "last", 800),
    "diastolic": (("LOINC/8462-4",), "mm[Hg]", "first", 800),
    "weight": (("LOINC/29463-7",), "kg", "mean", 1500),
    "height": (("LOINC/8302-2",), "cm", "median", 1500),
    "bmi": (("LOINC/39156-5",), "1", "count", 1500),
    "creatinine": (("LOINC/38483-4", "LOINC/2160-0"), "mg/dL", "min", 1500),
    "glucose": (("LOINC/2339-0",), "mg/dL", "slope", 3000),
    "hba1c": (("LOINC/4548-4",), "%", "max", 1500),
    "hypertension": (("SNOMED/59621000", "SNOMED/38341003"), "1", "any", 36_500),
    "sinusitis": (("SNOMED/444814009",), "d", "time_since", 36_500),
}
Row = dict[str, float]
Rows = dict[str, list[Row]]
"""Of each patient, in the order of the index dates: features and label."""


def synthea_plan() -> StudyPlan:
    """Return the plan: at each visit of an adult, whether an emergency follows."""
    features: list[dict[str, Any]] = [
        {
            "kind": "numeric",
            "name": name,
            "description": name,
            "codes": codes,
            "unit": unit,
            "aggregate": aggregate,
            "window_days": days,
            "plausible_range": [-100_000, 100_000],
            "clip": [0, 1000],
        }
        for name, (codes, unit, aggregate, days) in {
            "age": (("LOINC/30525-0",), "a", "last", 1),
            **NUMERIC,
        }.items()
    ]
    features.append(
        {
            "kind": "categorical",
            "name": "sex",
            "description": "Sex",
            "codes": ["LOINC/46098-0"],
            "levels": ["female", "male"],
        }
    )
    cohort = {
        "description": "Adults at a visit",
        "age_years_min": 18,
        "age_years_max": 110,
        "index_date": {"description": "A visit", "codes": VISITS, "occurrence": "every"},
    }
    label = {
        "name": "emergency",
        "description": "A visit to the emergency department",
        "codes": LABEL,
        "prediction_window_days": LABEL_DAYS,
    }
    return make_plan(features=features, cohort=cohort, label=label)


def rows_by_pandas(
    events: Iterable[tuple[Any, ...]], narrower: Mapping[str, set[str]] | None = None
) -> Rows:
    """Return the plan's rows.

    Args:
        events: distinct, in the event table's columns.
        narrower: codes that count as the asked one, besides itself.
    """
    below = narrower or {}
    columns = ["subject", "time", "code", "value", "unit", "text"]
    frame = pandas.DataFrame(list(events), columns=columns)
    frame["time"] = pandas.to_datetime(frame["time"])
    frame["value"] = frame["value"].astype(float)
    rows: Rows = {}
    for subject, own in frame.groupby("subject"):
        found = _of_patient(own, below)
        if found:
            rows[str(subject)] = found
    return rows


def _of_patient(own: pandas.DataFrame, below: Mapping[str, set[str]]) -> list[Row]:
    def of(codes: Iterable[str]) -> pandas.DataFrame:
        asked = {code for asked in codes for code in {asked} | below.get(asked, set())}
        return own[own["code"].isin(asked)]

    rows: list[Row] = []
    born = of(["MEDS/BIRTH"])["time"].min()
    died = of(["MEDS/DEATH"])["time"].min()
    sex = of(["LOINC/46098-0"])["text"].iloc[0]
    outcome = of(LABEL)["time"]
    recorded = {}
    for name, (codes, unit, aggregate, _) in NUMERIC.items():
        found = of(codes)
        # A value without a unit could be of any, and the plan says nothing of it.
        is_value = aggregate not in ("count", "any", "time_since")
        recorded[name] = found[(found["unit"] == unit) & found["value"].notna()]
        if not is_value:
            recorded[name] = found
    times = {name: found["time"].to_numpy() for name, found in recorded.items()}
    values = {name: found["value"].to_numpy() for name, found in recorded.items()}
    for index in sorted(set(of(VISITS)["time"])):
        birthday = (index.month, index.day) >= (born.month, born.day)
        age = index.year - born.year - (0 if birthday else 1)
        if not 18 <= age <= 110 or died <= index:
            continue
        horizon = index + pandas.Timedelta(days=LABEL_DAYS)
        row: Row = {
            "age": age,
            "sex": {"female": 0, "male": 1}[sex],
            "label": float(((outcome > index) & (outcome <= horizon)).any()),
        }
        for name, (_, _, aggregate, days) in NUMERIC.items():
            days_before = (index.to_numpy() - times[name]) / np.timedelta64(1, "D")
            within = (days_before >= 0) & (days_before < days)
            seen = -days_before[within], values[name][within]
            is_absent = not within.any() and aggregate not in ("count", "any")
            row[name] = np.nan if is_absent else AGGREGATES[aggregate](*seen)
        rows.append(row)
    return rows


Floats = npt.NDArray[np.float64]
"""Days after the index date, so none is above 0; or values."""


def _slope(days: Floats, values: Floats) -> float:
    return float(np.polyfit(days, values, 1)[0]) if len(set(days)) > 1 else np.nan


AGGREGATES: Final[dict[str, Callable[[Floats, Floats], float]]] = {
    "last": lambda days, values: float(values[days == days.max()].max()),
    "first": lambda days, values: float(values[days == days.min()].max()),
    "mean": lambda _, values: float(values.mean()),
    "median": lambda _, values: float(np.median(values)),
    "min": lambda _, values: float(values.min()),
    "max": lambda _, values: float(values.max()),
    "slope": _slope,
    "count": lambda days, _: float(len(days)),
    "any": lambda days, _: float(len(days) > 0),
    "time_since": lambda days, _: float(-days.max()),
}


def assert_same_rows(found: EventPatients, expected: Rows) -> None:
    """Compare every row, feature and label, to 1e-9."""
    table = found.table
    columns: dict[str, Any] = {**table.numeric, **table.levels, "label": table.label}
    rows: Rows = {}
    for place, subject in enumerate(table.subject_ids):
        row = {name: float(column[place]) for name, column in columns.items()}
        rows.setdefault(subject, []).append(row)
    assert {key: len(item) for key, item in rows.items()} == {
        key: len(item) for key, item in expected.items()
    }
    for subject, those in expected.items():
        for one, other in zip(rows[subject], those, strict=True):
            assert one.keys() == other.keys()
            for name, value in other.items():
                np.testing.assert_allclose(
                    one[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{subject} {name}"
                )
    for name in columns:
        assert len({row[name] for item in rows.values() for row in item}) > 1, name
