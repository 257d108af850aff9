"""One patient more adds 1 to exactly one cell of each table, whoever the others are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy.calibration import plan_mechanisms
from common.study.contingency import count_tables
from site_client.features.matrix import FeatureMatrix, split
from site_client.training.counts import exact_counts
from tests.lib.selecting import planted_patients, selecting_plan

PLAN = selecting_plan()
PLANNED = plan_mechanisms(PLAN).selection


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    odd=st.floats(width=32, allow_nan=True, allow_infinity=True),
    is_joint=st.booleans(),
    data=st.data(),
)
def test_one_patient_more_changes_one_cell_of_each_table_by_one(
    seed: int, count: int, odd: float, is_joint: bool, data: st.DataObject
) -> None:
    assert PLANNED is not None
    patients = planted_patients(PLAN, count, seed=seed)
    who = data.draw(st.integers(0, count - 1))
    patients.x[who, : data.draw(st.integers(0, patients.x.shape[1]))] = odd
    chosen = data.draw(st.sets(st.integers(0, 20), min_size=8, max_size=8))
    tables = count_tables(PLAN, tuple(sorted(chosen)) if is_joint else ())
    mechanism = PLANNED.joint if is_joint else PLANNED.single
    others = np.arange(count) != who
    fewer = FeatureMatrix(
        patients.columns, patients.x[others], patients.y[others], patients.part[others]
    )
    change = exact_counts(patients, tables, plan=PLAN) - exact_counts(fewer, tables, plan=PLAN)
    assert set(change.tolist()) <= {0, 1}
    assert change.sum() == mechanism.cells_per_patient_max == len(tables)
    first = 0
    for table in tables:
        assert change[first : first + table.cells].sum() == 1
        first += table.cells


def test_held_out_patients_are_in_no_count_and_several_rows_are_one_patient() -> None:
    plan = selecting_plan(privacy__rows_per_patient_max=3)
    single = planted_patients(plan, 60, seed=3)
    several = FeatureMatrix(
        single.columns,
        np.repeat(single.x[:, None], 3, axis=1),
        np.repeat(single.y[:, None], 3, axis=1),
        single.part,
        np.full((60, 3), 1 / 3, np.float32),
    )
    trained, held_out = split(several, plan)
    assert len(held_out.y) > 0
    counted = exact_counts(trained.first_samples(), count_tables(plan), plan=plan)
    assert counted.sum() == len(trained.y) * len(plan.features)
