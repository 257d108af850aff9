"""Data quality of a table: each planted problem is found, and clean data have none."""

from __future__ import annotations

import csv
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.study.plan import StudyPlan
from site_client.features.site_rows import SiteRows, read_rows
from site_client.quality.assessment import assess_quality, once_per_patient
from site_client.quality.figures import QualityFigures
from site_client.quality.report import QualityReport, report_quality
from site_client.sources.table import FeatureCounts, PatientTable
from site_client.sources.table_mapping import TableMapping
from tests.lib.plans import make_document, make_plan

PULSE = make_document()["features"][1] | {"name": "pulse", "codes": ["LOINC/8867-4"]}
MAPPING = """
kind = "table"
path = "patients.csv"
subject_id = "id"
[label]
column = "stroke"
positive = ["1"]
negative = ["0"]
[features]
age = { column = "age", unit = "a" }
systolic_bp = { column = "systolic_bp", unit = "mm[Hg]" }
sex = { column = "sex", values = { "F" = "female", "M" = "male" } }
pulse = { column = "pulse", unit = "mm[Hg]" }
"""
Rows = list[dict[str, str]]
Plant = Callable[[Rows], None]


def plan_of_four(**changes: Any) -> StudyPlan:
    return make_plan(**{"features": [*make_document()["features"], PULSE], **changes})


def clean_rows(patients: int = 400, seed: int = 1) -> Rows:
    rng = random.Random(seed)
    rows = []
    for number in range(patients):
        is_ill = rng.random() < 0.3
        rows.append(
            {
                "id": str(number),
                "age": f"{rng.uniform(30, 80) + 5 * is_ill:.2f}",
                "systolic_bp": f"{rng.gauss(140 if is_ill else 130, 15):.1f}",
                "sex": rng.choice("FM"),
                "pulse": f"{rng.uniform(60, 110):.1f}",
                "stroke": str(int(is_ill)),
            }
        )
    return rows


def report_of(folder: Path, rows: Rows, **changes: Any) -> QualityReport:
    plan = plan_of_four(**changes)
    with (folder / "patients.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    mapping = TableMapping.model_validate(tomllib.loads(MAPPING))
    return report_quality(plan, read_rows(plan, mapping, folder=folder, scratch=folder / "s"))


def test_clean_data_have_nothing_that_needs_a_look(tmp_path: Path) -> None:
    report = report_of(tmp_path, clean_rows())
    assert report.concerns == ()
    assert "Nothing was found." in report.local().sections[0].paragraphs


def leak_by_value(rows: Rows) -> None:
    for row in rows:
        row["systolic_bp"] = str(170 if row["stroke"] == "1" else 120)


def leak_by_absence(rows: Rows) -> None:
    for row in rows:
        row["pulse"] = row["pulse"] if row["stroke"] == "1" else ""


def leak_by_level(rows: Rows) -> None:
    for row in rows:
        row["sex"] = "F" if row["stroke"] == "1" else "M"


def slips(rows: Rows) -> None:
    for row in rows[::20]:
        row["systolic_bp"] = "1300"


def absent(rows: Rows) -> None:
    for place, row in enumerate(rows):
        row["pulse"] = row["pulse"] if place % 3 == 0 else ""


def unmapped(rows: Rows) -> None:
    for row in rows[::10]:
        row["sex"] = "weiblich"


def constant(rows: Rows) -> None:
    for row in rows:
        row["pulse"] = "80"


def rare(rows: Rows) -> None:
    for place, row in enumerate(rows):
        row["stroke"] = str(int(place % 25 == 0))


def small_group(rows: Rows) -> None:
    for place, row in enumerate(rows):
        row["sex"] = "F" if place < 12 else "M"


def twice(rows: Rows) -> None:
    rows += [row | {"id": f"again-{row['id']}"} for row in rows[:10]]


@pytest.mark.parametrize(
    ("plant", "kind", "subject", "says"),
    [
        (leak_by_value, "leakage", "systolic_bp", "AUROC of 1.000 (above 0.95; 400 rows"),
        (leak_by_absence, "leakage", "pulse", "whether pulse is missing alone tells"),
        (leak_by_level, "leakage", "sex", "alone tells the outcome"),
        (slips, "range", "systolic_bp", "20 of 400 values"),
        (absent, "completeness", "pulse", "in 34% of the rows"),
        (unmapped, "unmapped", "sex", "40 entries"),
        (constant, "constant", "pulse", "the same in every row"),
        (rare, "imbalance", "", "16 of 400 rows (4.0%"),
        (small_group, "group", "sex", "sex = female has 12 rows"),
        (twice, "alike", "", "20 rows equal another"),
    ],
)
def test_a_planted_problem_is_found_and_said_with_what_to_do(
    tmp_path: Path, plant: Plant, kind: str, subject: str, says: str
) -> None:
    rows = clean_rows()
    plant(rows)
    report = report_of(tmp_path, rows)
    found = [item for item in report.concerns if (item.kind, item.subject) == (kind, subject)]
    assert len(found) == 1, report.concerns
    assert says in found[0].text and found[0].todo


def test_a_leak_is_found_by_nothing_else_than_the_leak(tmp_path: Path) -> None:
    rows = clean_rows()
    leak_by_value(rows)
    concerns = report_of(tmp_path, rows).concerns
    assert {(item.kind, item.subject) for item in concerns} == {("leakage", "systolic_bp")}


def test_a_table_says_that_it_does_not_know_when_its_columns_were_known(tmp_path: Path) -> None:
    [leakage] = [
        section
        for section in report_of(tmp_path, clean_rows()).local().sections
        if section.heading == "Likely leakage"
    ]
    assert "not known" in leakage.paragraphs[1] and "ask whoever made it" in leakage.paragraphs[1]


def test_a_level_that_nobody_has_is_told_and_is_no_warning(tmp_path: Path) -> None:
    features = make_document()["features"]
    features[2]["levels"] = ["female", "male", "other"]
    report = report_of(tmp_path, clean_rows(), features=[*features, PULSE])
    assert report.concerns == ()
    items = [item for section in report.local().sections for item in section.items]
    assert "sex: nobody has the level other" in items


def slow_counts(table: PatientTable, name: str, bounds: list[float]) -> list[int]:
    values = [value for value in table.numeric[name].tolist() if value == value]
    found = [0] * (len(bounds) - 1)
    for value in values:
        for place in range(len(found)):
            is_last = place == len(found) - 2
            if bounds[place] <= value < bounds[place + 1] or (is_last and value == bounds[-2]):
                found[place] += 1
                break
    return found


@given(
    st.lists(
        st.one_of(st.just(np.nan), st.floats(50, 300), st.sampled_from([50.0, 90.0, 101.0, 200.0])),
        min_size=1,
        max_size=40,
    )
)
def test_ranges_hold_every_value_once_and_agree_with_a_slow_count(values: list[float]) -> None:
    plan = make_plan()
    rows = len(values)
    table = PatientTable(
        subject_ids=tuple(map(str, range(rows))),
        numeric={"age": np.full(rows, 50.0), "systolic_bp": np.array(values)},
        levels={"sex": np.zeros(rows, np.int64)},
        label=np.zeros(rows, np.float32),
        counts={item.name: FeatureCounts(rows) for item in plan.features},
        unlabelled=0,
    )
    found = figures_of(plan, table).features[1]
    edges = np.linspace(90, 200, 11).tolist()
    slow = slow_counts(table, "systolic_bp", [-np.inf, *edges, np.inf])
    # The upper clip bound belongs to the last range inside, not to "above".
    assert [part.rows for part in found.parts] == slow
    assert sum(part.rows for part in found.parts) == found.recorded
    assert found.recorded == rows - int(np.isnan(values).sum())
    assert found.distinct == len({value for value in values if value == value})


def figures_of(plan: StudyPlan, table: PatientTable) -> QualityFigures:
    return assess_quality(plan, SiteRows(table, None))


def test_a_range_that_nobody_can_be_in_has_no_part() -> None:
    plan = make_plan(features__1__plausible_range=[90, 200])
    table = PatientTable(
        subject_ids=("a",),
        numeric={"age": np.array([50.0]), "systolic_bp": np.array([100.0])},
        levels={"sex": np.array([0])},
        label=np.array([1], np.float32),
        counts={item.name: FeatureCounts(1) for item in plan.features},
        unlabelled=0,
    )
    labels = [part.label for part in figures_of(plan, table).features[1].parts]
    assert labels[0] == "90 to 101" and labels[-1] == "189 to 200" and len(labels) == 10


@pytest.mark.parametrize(
    ("aggregate", "clip", "labels"),
    [
        ("any", [0, 1], ["0", "1"]),
        ("count", [0, 3], ["0", "1", "2", "3", "above 3"]),
        ("count", [1, 2.5], ["below 1", "1", "2", "above 2"]),
        ("count", [1.5, 1.7], ["below 1.5", *["..."] * 10, "above 1.7"]),
        ("count", [0, 40], [*(f"{n} to {n + 4}" for n in range(0, 40, 4)), "above 40"]),
        ("slope", [-1, 1], ["below -1", *["..."] * 10, "above 1"]),
    ],
)
def test_what_is_counted_has_a_part_for_each_number_and_none_that_cannot_be(
    aggregate: str, clip: list[float], labels: list[str]
) -> None:
    unit = {"slope": "mm[Hg]/d"}.get(aggregate, "1")
    plan = make_plan(
        features__1__aggregate=aggregate,
        features__1__unit=unit,
        features__1__clip=clip,
        features__1__missing="indicator" if aggregate == "slope" else "none_allowed",
    )
    values = np.array([0.0, 1.0, 2.0, 41.0 if aggregate == "count" else 1.0])
    table = PatientTable(
        subject_ids=tuple("abcd"),
        numeric={"age": np.full(4, 50.0), "systolic_bp": values},
        levels={"sex": np.zeros(4, np.int64)},
        label=np.zeros(4, np.float32),
        counts={item.name: FeatureCounts(4) for item in plan.features},
        unlabelled=0,
    )
    parts = figures_of(plan, table).features[1].parts
    assert [
        found.label if asked != "..." else "..." for found, asked in zip(parts, labels, strict=True)
    ] == labels
    assert sum(part.rows for part in parts) == 4
    if aggregate == "count" and clip == [0, 3]:
        assert [part.rows for part in parts] == [1, 1, 1, 0, 1]


def test_of_a_feature_with_time_bins_the_last_known_value_counts() -> None:
    plan = make_plan(features__1__time_bins=3, privacy__rows_per_patient_max=2)
    table = PatientTable(
        subject_ids=("a", "a", "b"),
        numeric={
            "age": np.array([50.0, 51, 52]),
            "systolic_bp": np.array([[100, np.nan, np.nan], [100, 150, 195], [np.nan] * 3]),
        },
        levels={"sex": np.array([0, 0, 0])},
        label=np.array([1, 0, 1], np.float32),
        counts={item.name: FeatureCounts(3) for item in plan.features},
        unlabelled=0,
    )
    found = figures_of(plan, table).features[1]
    assert found.recorded == 2 and found.distinct == 2
    assert {part.label for part in found.parts if part.rows} == {"90 to 101", "189 to 200"}
    once = once_per_patient(SiteRows(table, None)).table
    assert once.counts["systolic_bp"] == FeatureCounts(1, 1)


def test_each_patient_counts_once_in_what_may_leave() -> None:
    plan = make_plan(privacy__rows_per_patient_max=2)
    table = PatientTable(
        subject_ids=("a", "b", "a", "c", "b"),
        numeric={
            "age": np.array([1.0, 2, 3, 4, 5]),
            "systolic_bp": np.array([np.nan, 100, 110, 120, 130]),
        },
        levels={"sex": np.array([0, -1, 1, 1, 0])},
        label=np.array([1, 0, 0, 1, 0], np.float32),
        counts={item.name: FeatureCounts(5) for item in plan.features},
        unlabelled=0,
    )
    once = once_per_patient(SiteRows(table, None)).table
    assert once.subject_ids == ("a", "b", "c")
    assert once.numeric["age"].tolist() == [1, 2, 4]
    assert once.counts["systolic_bp"] == FeatureCounts(2, 1)
    assert once.counts["sex"] == FeatureCounts(2, 1)
    assert once.label.tolist() == [1, 0, 1]
