"""The feature matrix against a slow pandas reference, and the patients' fixed parts."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.errors import DataSourceError
from common.privacy.mechanism import PATIENT_HASH_PARTS
from common.study.columns import feature_columns
from common.study.plan import NumericFeature
from common.study.plan_file import read_plan
from simulations.heart_sites import heart_sites
from site_client.features.matrix import build_matrix, patient_part, split
from site_client.features.site_rows import SiteRows
from site_client.quality.assessment import assess_quality
from site_client.sources.table import MISSING_LEVEL, PatientTable, read_table
from site_client.sources.table_mapping import TableMapping
from site_client.training.evaluation import count_by_score
from tests.lib.plans import make_plan
from tests.lib.sites_in_process import PLAN

SALT = b"x" * 32


@pytest.mark.parametrize("number", range(4))
def test_the_matrix_equals_a_slow_pandas_reference(tmp_path: Path, number: int) -> None:
    plan = read_plan(PLAN)
    site = heart_sites(tmp_path, uci=None)[number]
    mapping = TableMapping.model_validate(tomllib.loads(site.source)["source"])
    table = read_table(plan, mapping, folder=tmp_path)
    matrix = build_matrix(table, plan, salt=SALT)
    frame = pd.read_csv(mapping.path, dtype=str, keep_default_na=False)
    expected = pd.DataFrame(index=frame.index)
    for feature in plan.features:
        cells = frame[mapping.features[feature.name].column]
        if isinstance(feature, NumericFeature):
            values = pd.to_numeric(cells.replace("", math.nan))
            values = values.where(values.between(*feature.plausible_range))
            low, high = feature.clip
            expected[feature.name] = ((values.clip(low, high) - low) / (high - low) * 2 - 1).fillna(
                0.0
            )
            is_missing = values.isna()
        else:
            for level in feature.levels:
                expected[f"{feature.name}={level}"] = (cells == level).astype(float)
            is_missing = cells == ""
        if feature.missing == "indicator":
            expected[f"{feature.name}__missing"] = is_missing.astype(float)
    assert matrix.columns == tuple(expected.columns) == feature_columns(plan)
    np.testing.assert_allclose(matrix.x, expected.to_numpy(), atol=1e-6)
    assert np.array_equal(matrix.y, (frame.heart_disease == "1").to_numpy(np.float32))
    assert np.abs(matrix.x).max() <= 1.0
    quality = assess_quality(plan, SiteRows(table, None))
    assert quality.patients == len(frame)
    assert [item.missing for item in quality.features] == [
        int((frame[mapping.features[item.name].column] == "").sum()) for item in plan.features
    ]


def test_no_patient_both_trains_and_is_held_out(tmp_path: Path) -> None:
    plan = read_plan(PLAN)
    site = heart_sites(tmp_path, uci=None)[0]
    mapping = TableMapping.model_validate(tomllib.loads(site.source)["source"])
    matrix = build_matrix(read_table(plan, mapping, folder=tmp_path), plan, salt=SALT)
    trained, held_out = split(matrix, plan)
    assert len(trained.y) + len(held_out.y) == len(matrix.y)
    assert not set(trained.part) & set(held_out.part)
    share = len(held_out.y) / len(matrix.y)
    assert share == pytest.approx(plan.evaluation.held_out_fraction, abs=0.1)


def test_a_patients_part_is_stable_uniform_and_depends_on_the_sites_secret() -> None:
    parts = np.array([patient_part(f"P{i}", salt=SALT) for i in range(20_000)])
    assert parts.min() >= 0
    assert parts.max() < PATIENT_HASH_PARTS
    counts, _ = np.histogram(parts, bins=20, range=(0, PATIENT_HASH_PARTS))
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-square, 19 degrees: p about 1e-6
    assert patient_part("P1", salt=SALT) == parts[1]
    assert patient_part("P1", salt=b"y" * 32) != parts[1]


def test_counts_by_score_put_each_patient_into_one_cell() -> None:
    rng = np.random.default_rng(3)
    scores, y = rng.random(500), (rng.random(500) < 0.3).astype(np.float32)
    scores[:2] = (0.0, 1.0)
    counts = count_by_score(scores, y, bins=10)
    assert counts.sum() == 500
    assert counts[1].sum() == int(y.sum())
    slow = np.zeros((2, 10), dtype=int)
    for score, label in zip(scores, y, strict=True):
        slow[int(label), min(int(score * 10), 9)] += 1
    assert np.array_equal(counts, slow)


def _rows_table(tmp_path: Path, rows: list[tuple[str, int, int]]) -> tuple[TableMapping, Path]:
    """Write rows (patient, age, label) as a table of the small plan."""
    (tmp_path / "rows.csv").write_text(
        "id,age,bp,sex,stroke\n"
        + "".join(f"{patient},{age},120,f,{label}\n" for patient, age, label in rows)
    )
    text = """
[source]
kind = "table"
path = "rows.csv"
subject_id = "id"
[source.label]
column = "stroke"
positive = ["1"]
negative = ["0"]
[source.features.age]
column = "age"
unit = "a"
[source.features.systolic_bp]
column = "bp"
unit = "mm[Hg]"
[source.features.sex]
column = "sex"
values = { f = "female", m = "male" }
"""
    return TableMapping.model_validate(tomllib.loads(text)["source"]), tmp_path


ROWS = [("a", 30, 0), ("b", 40, 1), ("a", 50, 1), ("c", 60, 0), ("a", 70, 0), ("b", 80, 0)]


def test_several_rows_of_a_patient_are_one_patient_with_at_most_the_plans_samples(
    tmp_path: Path,
) -> None:
    plan = make_plan(privacy__rows_per_patient_max=2)
    mapping, folder = _rows_table(tmp_path, ROWS)
    table = read_table(plan, mapping, folder=folder)
    assert table.patients == 3 and assess_quality(plan, SiteRows(table, None)).patients == 3
    matrix = build_matrix(table, plan, salt=SALT)
    assert matrix.weight is not None
    assert matrix.x.shape == (3, 2, len(matrix.columns)) and matrix.y.shape == (3, 2)
    np.testing.assert_array_equal(matrix.weight, [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    assert [int(part) for part in matrix.part] == [
        patient_part(item, salt=SALT) for item in ("a", "b", "c")
    ]
    ages = (matrix.x[..., 0] + 1) / 2 * 70 + 20
    for patient, expected in enumerate(({30, 50, 70}, {40, 80}, {60})):
        present = matrix.weight[patient] > 0
        assert {round(float(age)) for age in ages[patient, present]} <= expected
    assert not matrix.x[2, 1].any()
    first = matrix.first_samples()
    np.testing.assert_array_equal(first.x, matrix.x[:, 0])


def test_the_rows_of_a_patient_are_drawn_once_and_stay_drawn_when_the_table_is_appended(
    tmp_path: Path,
) -> None:
    plan = make_plan(privacy__rows_per_patient_max=2)
    mapping, folder = _rows_table(tmp_path, ROWS)
    once = build_matrix(read_table(plan, mapping, folder=folder), plan, salt=SALT)
    again = build_matrix(read_table(plan, mapping, folder=folder), plan, salt=SALT)
    np.testing.assert_array_equal(once.x, again.x)
    mapping, folder = _rows_table(tmp_path, [*ROWS, ("d", 35, 1)])
    more = build_matrix(read_table(plan, mapping, folder=folder), plan, salt=SALT)
    np.testing.assert_array_equal(more.x[:3], once.x)


def test_a_second_row_of_a_patient_is_refused_where_the_plan_allows_one(tmp_path: Path) -> None:
    mapping, folder = _rows_table(tmp_path, ROWS)
    with pytest.raises(DataSourceError, match="a patient stands here and on line 2"):
        read_table(make_plan(), mapping, folder=folder)
    # With several rows allowed but none used, the matrix is the same but for an axis.
    plain = build_matrix(
        read_table(make_plan(), *_rows_table(tmp_path, ROWS[:2])[:1], folder=folder),
        make_plan(),
        salt=SALT,
    )
    plan = make_plan(privacy__rows_per_patient_max=3)
    grouped = build_matrix(read_table(plan, mapping, folder=folder), plan, salt=SALT)
    np.testing.assert_array_equal(grouped.x[:, 0], plain.x)
    assert not grouped.x[:, 1:].any()


BINNED = np.array([[np.nan, 90.0, np.nan], [200.0, np.nan, 145.0], [np.nan, np.nan, np.nan]])


def _binned_table() -> PatientTable:
    return PatientTable(
        subject_ids=("a", "b", "c"),
        numeric={"age": np.array([20.0, 55.0, 90.0]), "systolic_bp": BINNED},
        levels={"sex": np.array([0, 1, MISSING_LEVEL])},
        label=np.array([0.0, 1.0, 0.0], dtype=np.float32),
        counts={},
        unlabelled=0,
    )


def test_a_bin_without_a_value_has_the_last_one_before_it_and_an_indicator() -> None:
    plan = make_plan(features__1__time_bins=3)
    matrix = build_matrix(_binned_table(), plan, salt=SALT)
    column = {name: matrix.x[:, place] for place, name in enumerate(matrix.columns)}
    values = np.stack([column[f"systolic_bp[{place}]"] for place in (1, 2, 3)], axis=1)
    # 90 and 200 are the clip bounds, 145 the middle, as is what nobody recorded before.
    np.testing.assert_allclose(values, [[0, -1, -1], [1, 1, 0], [0, 0, 0]], atol=1e-7)
    masks = np.stack([column[f"systolic_bp__missing[{place}]"] for place in (1, 2, 3)], axis=1)
    assert np.array_equal(masks, np.isnan(BINNED))


def test_a_recurrent_models_matrix_has_the_same_values_bin_after_bin() -> None:
    flat = make_plan(features__1__time_bins=3)
    recurrent = make_plan(features__1__time_bins=3, model={"kind": "gru", "width": 2})
    table = _binned_table()
    known = build_matrix(table, flat, salt=SALT)
    of = {name: known.x[:, place] for place, name in enumerate(known.columns)}
    matrix = build_matrix(table, recurrent, salt=SALT)
    assert matrix.columns == feature_columns(recurrent)
    for place, name in enumerate(matrix.columns):
        bare = name.partition("[")[0]
        assert np.array_equal(matrix.x[:, place], of[name] if name in of else of[bare])
