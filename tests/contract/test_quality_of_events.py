"""Data quality of a source of events: each planted problem is found, and clean events have none."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import Table, parquet

from common.clock import SystemClock
from site_client.config import SitePaths
from site_client.quality.report import QualityReport, report_quality
from site_client.site_features import inspected_rows
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.event_hospital import SOURCE, admissions_plan, write_meds_hospital

Events = list[dict[str, Any]]
Plant = Callable[[Events], None]
DAY = datetime.timedelta(days=1)
SEPSIS = "SNOMED//91302008"
SEPSIS_LABEL: dict[str, Any] = {
    "name": "sepsis",
    "description": "Sepsis",
    "codes": ["SNOMED/91302008"],
    "prediction_window_days": 30,
}


def report_of(folder: Path, plant: Plant | None = None, **changes: Any) -> QualityReport:
    if not (folder / "meds").exists():
        write_meds_hospital(folder, patients=400)
    file = folder / "meds/data/all/0.parquet"
    if plant is not None:
        table = parquet.read_table(file)
        events = table.to_pylist()
        plant(events)
        early = datetime.datetime(1900, 1, 1)  # noqa: DTZ001 - the table has no zones
        events.sort(key=lambda event: (event["subject_id"], event["time"] or early))
        parquet.write_table(Table.from_pylist(events, schema=table.schema), file)
    plan = admissions_plan(**changes)
    mapping = MedsMapping.model_validate(tomllib.loads(SOURCE)["source"])
    rows = inspected_rows(plan, mapping, paths=SitePaths(folder), clock=SystemClock())
    return report_quality(plan, rows)


def of_code(events: Events, code: str) -> Events:
    return [event for event in events if event["code"] == code]


def add(events: Events, like: dict[str, Any], **changes: Any) -> None:
    events.append({**like, "numeric_value": None, "unit": None, "text_value": None, **changes})


def test_clean_events_have_nothing_that_needs_a_look(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert report.concerns == ()
    figures = report.figures
    assert figures.months is not None and sum(figures.months.values()) == figures.rows == 400
    assert [item.patients for item in figures.attrition][-1] == 400
    units = {item.unit: item for item in figures.features[1].units or ()}
    assert set(units) == {"mg/dL", "umol/L"}
    assert units["umol/L"].is_converted and not units["mg/dL"].is_converted
    # Three a patient, the third and second before the index date of a day: all of the window.
    met = figures.features[1].events
    assert met is not None and sum(item.values for item in units.values()) == met.used == 1200


def other_quantity(events: Events) -> None:
    for event in of_code(events, "LOINC//2160-0")[::5]:
        event["unit"] = "mm[Hg]"


def no_unit(events: Events) -> None:
    for event in of_code(events, "LOINC//2160-0")[::7]:
        event["unit"] = None


def wrong_unit(events: Events) -> None:
    for event in of_code(events, "LOINC//2160-0"):
        if event["unit"] == "umol/L":
            event["numeric_value"] /= 88.4  # the number is in mg/dL, whatever the unit says


def implausible(events: Events) -> None:
    for event in of_code(events, "LOINC//2160-0")[::10]:
        event["numeric_value"] = 90_000.0


def unmapped_code(events: Events) -> None:
    for event in of_code(events, "LOINC//2160-0")[::3]:
        event["code"] = "kreatinin im serum"


def other_words(events: Events) -> None:
    for place, event in enumerate(of_code(list(events), "Visit//IP")):
        if place % 4 == 0:
            add(events, event, code="LOINC//46098-0", text_value="unknown")


def missing_month(events: Events) -> None:
    gone = {
        event["subject_id"] for event in of_code(events, "Visit//IP") if event["time"].month == 4
    }
    events[:] = [event for event in events if event["subject_id"] not in gone]


@pytest.mark.parametrize(
    ("plant", "kind", "subject", "says"),
    [
        (other_quantity, "unit", "creatinine", "240 of 1,200 values of creatinine are left out"),
        (no_unit, "unit", "creatinine", "recorded in no unit: no unit recorded"),
        (wrong_unit, "unit", "creatinine", "-fold after conversion"),
        (implausible, "range", "creatinine", "120 of 1,200 values"),
        (unmapped_code, "excluded", "", "a code without a standard one"),
        (other_words, "unmapped", "sex", "100 entries"),
        (missing_month, "months", "", "first 2023-04"),
    ],
)
def test_a_planted_problem_is_found_and_said_with_what_to_do(
    tmp_path: Path, plant: Plant, kind: str, subject: str, says: str
) -> None:
    report = report_of(tmp_path, plant)
    found = [item for item in report.concerns if (item.kind, item.subject) == (kind, subject)]
    assert len(found) == 1, report.concerns
    assert says in found[0].text and found[0].todo


def test_the_most_frequent_code_without_a_standard_one_is_named_to_the_steward(
    tmp_path: Path,
) -> None:
    figures = report_of(tmp_path, unmapped_code).figures
    assert figures.source is not None
    assert list(figures.source.unmapped_codes.items()) == [("kreatinin im serum", 400)]


def sepsis_before_and_after(events: Events) -> None:
    """Every second patient had the outcome before; every third has it after."""
    for place, visit in enumerate(of_code(list(events), "Visit//IP")):
        if place % 2 == 0:
            add(events, visit, code=SEPSIS, time=visit["time"] - 3 * DAY)
        if place % 3 == 0:
            add(events, visit, code=SEPSIS, time=visit["time"] + 5 * DAY)


HISTORY: dict[str, Any] = {
    "kind": "numeric",
    "name": "infections",
    "description": "Infections of the last year, sepsis among them",
    "codes": ["SNOMED/40733004"],
    "unit": "1",
    "aggregate": "count",
    "plausible_range": [0, 100],
    "clip": [0, 5],
}


def test_a_code_of_the_outcome_that_is_narrower_than_a_features_code_is_found(
    tmp_path: Path,
) -> None:
    # A plan that names the outcome's own code is refused (P13); what a site's vocabulary puts
    # below a feature's code only the site can see.
    changes = {"label": SEPSIS_LABEL, "features__1": HISTORY}
    write_meds_hospital(tmp_path, patients=400)
    codes = tmp_path / "meds/metadata/codes.parquet"
    row = {"code": SEPSIS, "description": "Sepsis", "parent_codes": ["SNOMED/40733004"]}
    schema = parquet.read_schema(codes)
    parquet.write_table(Table.from_pylist([row], schema=schema), codes)
    report = report_of(tmp_path, sepsis_before_and_after, **changes)
    [found] = [item for item in report.concerns if item.kind == "outcome-code"]
    assert found.subject == "infections" and "in 200 rows" in found.text


def test_outcomes_at_exactly_the_index_time_are_counted(tmp_path: Path) -> None:
    def plant(events: Events) -> None:
        sepsis_before_and_after(events)
        for visit in of_code(list(events), "Visit//IP")[:7]:
            add(events, visit, code=SEPSIS, time=visit["time"] + DAY)

    report = report_of(tmp_path, plant, label=SEPSIS_LABEL)
    [found] = [item for item in report.concerns if item.kind == "outcome-at-index"]
    assert found.text.startswith("7 rows have the outcome's code at exactly the index time")


def test_a_treatment_given_because_of_the_outcome_is_found_as_a_leak(tmp_path: Path) -> None:
    def plant(events: Events) -> None:
        died = {event["subject_id"] for event in of_code(events, "MEDS_DEATH")}
        for visit in of_code(list(events), "Visit//IP"):
            if visit["subject_id"] in died:
                add(events, visit, code="SNOMED//103735009", time=visit["time"])

    palliative = HISTORY | {"name": "palliative_care", "codes": ["SNOMED/103735009"]}
    report = report_of(tmp_path, plant, features__1=palliative)
    assert [(item.kind, item.subject) for item in report.concerns] == [
        ("leakage", "palliative_care")
    ]


def test_nothing_after_the_index_date_is_inspected(tmp_path: Path) -> None:
    def plant(events: Events) -> None:
        for visit in of_code(list(events), "Visit//IP"):
            late = {"time": visit["time"] + 2 * DAY, "numeric_value": 1.0, "unit": "furlong"}
            add(events, visit, code="LOINC//2160-0", **late)

    report = report_of(tmp_path, plant)
    assert {item.unit for item in report.figures.features[1].units or ()} == {"mg/dL", "umol/L"}


def test_words_of_few_patients_are_not_repeated_to_anybody(tmp_path: Path) -> None:
    def plant(events: Events) -> None:
        for place, event in enumerate(of_code(list(events), "Visit//IP")[:30]):
            text = "Sister of Dr Marked" if place < 3 else "no answer"
            add(events, event, code="LOINC//72166-2", text_value=text)

    smoking: dict[str, Any] = {
        "kind": "categorical",
        "name": "smoking",
        "description": "Smoking",
        "codes": ["LOINC/72166-2"],
        "levels": ["yes", "no"],
    }
    report = report_of(tmp_path, plant, features__1=smoking)
    for shown in (report.local(), report.shareable(), report.as_record()):
        assert "Marked" not in str(shown)
    assert "no answer" in str(report.local()) and "no answer" not in str(report.shareable())
    texts = report.figures.features[1].other_texts
    assert [(item.text, item.values) for item in texts] == [("no answer", 27), (None, 3)]


def test_a_unit_that_is_none_and_that_few_patients_have_is_not_repeated(tmp_path: Path) -> None:
    def plant(events: Events) -> None:
        for place, event in enumerate(of_code(events, "LOINC//2160-0")[:60]):
            event["unit"] = "ask Dr Marked" if place < 3 else "kreatinin"

    report = report_of(tmp_path, plant)
    for shown in (report.local(), report.shareable(), report.as_record()):
        assert "Marked" not in str(shown)
        assert "kreatinin" in str(shown)


def test_an_index_date_of_each_row_is_carried_along(tmp_path: Path) -> None:
    inspection = report_of(tmp_path).rows.events
    assert inspection is not None and inspection.inspection is not None
    times = inspection.inspection.index_times
    assert times.dtype == np.dtype("datetime64[us]") and len(times) == 400
    assert times.min() >= np.datetime64("2023-01-02")
