"""A selection's counts at a site: exact against a slow reference, then noised cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from common.privacy.calibration import plan_mechanisms
from common.study.columns import feature_columns
from common.study.contingency import cell_count, count_tables
from site_client.features.matrix import FeatureMatrix
from site_client.training.counts import candidate_classes, count_patients, exact_counts
from site_client.training.randomness import Randomness
from tests.lib.plans import make_document, make_plan
from tests.lib.selecting import code, planted_patients, selecting_plan

CHOICE = {"keep": 1, "present_share_min": 0.01, "joint_candidates": 2, "bins": 4}


def test_exact_counts_agree_with_counting_one_patient_after_another() -> None:
    plan = selecting_plan()
    patients = planted_patients(plan, 300, seed=1)
    classes = candidate_classes(patients, plan)
    for candidates in ((), (0, 4, 7, 20)):
        tables = count_tables(plan, candidates)
        slow = [np.zeros(table.shape, dtype=int) for table in tables]
        for patient, label in enumerate(patients.y):
            for table, counted in zip(tables, slow, strict=True):
                place = [int(classes[candidate][patient]) for candidate in table.candidates]
                counted[(*place, int(label))] += 1
        expected = np.concatenate([counted.ravel() for counted in slow])
        assert exact_counts(patients, tables, plan=plan).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("aggregate", "clip", "missing", "values", "classes"),
    [
        # Four bins of 0 to 8; a value that must be there has no class for its absence.
        ("last", [0, 8], "none_allowed", [0.0, 1.9, 2.0, 5.9, 8.0], [0, 0, 1, 2, 3]),
        ("last", [0, 8], "indicator", [0.0, np.nan, 2.0, 5.9, 8.0], [1, 0, 2, 3, 4]),
        # Who has no event has the value 0, and none of the code.
        ("count", [0, 8], "none_allowed", [0.0, 1.0, 2.0, 5.9, 8.0], [0, 1, 2, 3, 4]),
        ("any", [0, 1], "none_allowed", [0.0, 1.0], [0, 1]),
        ("any", [0, 1], "indicator", [0.0, np.nan, 1.0], [0, 0, 1]),
    ],
)
def test_classes_of_a_numeric_candidate(
    aggregate: str, clip: list[float], missing: str, values: list[float], classes: list[int]
) -> None:
    changed = code(0) | {"aggregate": aggregate, "clip": clip, "missing": missing}
    changed |= {"plausible_range": clip}
    plan = make_plan(
        features=[changed, code(1)], fairness_groups=..., monitoring=..., selection=CHOICE
    )
    found = np.array(values)
    scaled = (np.nan_to_num(found, nan=sum(clip) / 2) - clip[0]) / (clip[1] - clip[0]) * 2 - 1
    columns = [scaled]
    if missing == "indicator":
        columns.append(np.isnan(found).astype(float))
    columns.append(np.ones(len(found)))
    patients = FeatureMatrix(
        feature_columns(plan),
        np.stack(columns, axis=1).astype(np.float32),
        np.zeros(len(found), np.float32),
        np.zeros(len(found), np.int64),
    )
    assert candidate_classes(patients, plan)[0].tolist() == classes


@pytest.mark.parametrize("model", ["logistic_regression", "gru"])
def test_in_time_bins_the_newest_value_counts_and_the_most_events(model: str) -> None:
    binned = {"aggregate": "last", "clip": [0, 8], "plausible_range": [0, 8], "time_bins": 3}
    value = code(0) | binned | {"missing": "indicator"}
    events = code(1) | binned | {"missing": "indicator", "aggregate": "count"}
    kind = {"kind": model} | ({"width": 4} if model == "gru" else {})
    plan = make_plan(
        features=[value, events, make_document()["features"][2]],
        monitoring=...,
        selection=CHOICE,
        model=kind,
    )
    names = feature_columns(plan)
    x = np.zeros((3, len(names)), np.float32)
    for number in (1, 2, 3):
        x[:, names.index(f"code_0[{number}]")] = 2 * np.array([0, 7.9, number]) / 8 - 1
        # Nothing recorded in the newest bin is no missing value: the one before it still holds.
        x[:, names.index(f"code_0__missing[{number}]")] = [1, number == 3, 0]
        x[:, names.index(f"code_1[{number}]")] = (
            2 * np.array([0, 5 if number == 1 else 0, 2]) / 8 - 1
        )
    sex = "sex=male[3]" if model == "gru" else "sex=male"
    x[:, names.index(sex)] = [1, 1, 1]
    patients = FeatureMatrix(names, x, np.zeros(3, np.float32), np.zeros(3, np.int64))
    first, second, third = candidate_classes(patients, plan)
    assert first.tolist() == [0, 4, 2]
    assert second.tolist() == [0, 3, 2]
    assert third.tolist() == [2, 2, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_no_value_of_a_row_is_outside_its_table(value: float) -> None:
    plan = selecting_plan()
    patients = planted_patients(plan, 5, seed=1)
    patients.x[2] = value
    counts = exact_counts(patients, count_tables(plan), plan=plan)
    assert counts.sum() == 5 * len(plan.features)


def test_each_cell_carries_discrete_noise_of_the_mechanism_s_size() -> None:
    plan = selecting_plan()
    planned = plan_mechanisms(plan).selection
    assert planned is not None
    patients = planted_patients(plan, 200, seed=2)
    tables = count_tables(plan, tuple(range(8)))
    exact = exact_counts(patients, tables, plan=plan)
    noise = []
    for seed in range(20):
        noised = count_patients(
            patients,
            tables,
            plan=plan,
            mechanism=planned.joint,
            randomness=Randomness.reproducible(seed),
        )
        assert all(type(count) is int for count in noised)
        assert len(noised) == cell_count(tables)
        noise.append(np.array(noised) - exact)
    assert np.std(noise) == pytest.approx(planned.joint.noise_multiplier, rel=0.05)
    assert abs(np.mean(noise)) < 4 * planned.joint.noise_multiplier / np.sqrt(20 * len(exact))
