"""The tables of a selection, and the noise that its two counts carry."""

from __future__ import annotations

import math

import pytest

from common.errors import AccountingError
from common.privacy.accountant import epsilon_of, epsilon_of_counted
from common.privacy.calibration import calibrate_selection, plan_mechanisms
from common.privacy.mechanism import GaussianVector
from common.privacy.patient_parts import patient_parts
from common.study.contingency import always_kept, cell_count, class_count, count_tables
from common.study.plan import CategoricalFeature, NumericFeature, Selection
from tests.lib.plans import make_plan
from tests.lib.selecting import code, selecting_plan

PART = patient_parts(make_plan().evaluation).training
CHOICE = Selection(keep=2, present_share_min=0.01, joint_candidates=3, bins=4)


def test_every_candidate_is_a_table_and_every_pair_is_one() -> None:
    plan = selecting_plan()
    singles = count_tables(plan)
    assert [table.candidates for table in singles] == [(place,) for place in range(21)]
    assert singles[0].shape == (2, 2)  # without the code, with it; by outcome
    assert singles[20].shape == (3, 2)  # sex unknown, female, male
    joints = count_tables(plan, (0, 3, 20))
    assert [table.candidates for table in joints] == [(0, 3), (0, 20), (3, 20)]
    assert joints[1].shape == (2, 3, 2)
    assert cell_count(joints) == 8 + 12 + 12
    assert count_tables(make_plan()) == ()


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({"aggregate": "any"}, 2),
        ({"aggregate": "count", "clip": [0, 1]}, 5),
        ({"aggregate": "last", "missing": "none_allowed"}, 4),
        ({"aggregate": "last", "missing": "indicator"}, 5),
    ],
)
def test_a_numeric_candidate_has_its_bins_and_the_patients_without_it(
    changes: dict[str, object], classes: int
) -> None:
    assert class_count(NumericFeature.model_validate(code(0) | changes), CHOICE) == classes


def test_a_categorical_candidate_has_its_levels_and_the_patients_without_it() -> None:
    sex = make_plan().features[2]
    assert isinstance(sex, CategoricalFeature)
    assert class_count(sex, CHOICE) == 3
    assert class_count(sex.model_copy(update={"missing": "none_allowed"}), CHOICE) == 2


def test_groups_sentinels_and_what_the_plan_names_are_always_kept() -> None:
    plan = selecting_plan(
        selection__always_keep=["code_7"],
        monitoring={"sentinel_features": ["code_3"], "epsilon_per_report": 0.5},
    )
    assert [plan.features[place].name for place in always_kept(plan)] == ["code_3", "code_7", "sex"]


def test_a_plan_that_selects_commits_to_its_two_counts_and_to_nothing_else() -> None:
    plan = selecting_plan()
    planned = plan_mechanisms(plan)
    assert planned.selection is not None
    assert planned.counted == ((planned.selection.single, 1), (planned.selection.joint, 1))
    assert planned.selection.single.cells_per_patient_max == len(plan.features)
    assert planned.selection.joint.cells_per_patient_max == math.comb(8, 2)
    assert planned.selection.single.part == patient_parts(plan.evaluation).training
    assert planned.evaluation_rounds == ()


def test_a_selection_of_a_plan_with_scaling_releases_no_sums_for_it() -> None:
    plan = selecting_plan(scaling={"kind": "dp_mean_variance"})
    planned = plan_mechanisms(plan)
    assert planned.scaling is None
    assert planned.counted == plan_mechanisms(selecting_plan()).counted


def test_two_counts_that_are_alike_are_one_record_done_twice() -> None:
    plan = selecting_plan(codes=20, selection__joint_candidates=7)  # 21 candidates, 21 pairs
    planned = plan_mechanisms(plan)
    assert planned.selection is not None
    assert planned.counted == ((planned.selection.single, 2),)


@pytest.mark.parametrize(("candidates", "joint"), [(3, 3), (21, 8), (300, 12), (10_000, 20)])
def test_both_counts_together_keep_epsilon_and_use_nearly_all_of_it(
    candidates: int, joint: int
) -> None:
    delta = 1e-5
    made = calibrate_selection(
        epsilon=1.0,
        delta=delta,
        candidates=candidates,
        joint_candidates=joint,
        part=PART,
    )
    counted = {made.single: 1} if made.single == made.joint else {made.single: 1, made.joint: 1}
    if made.single == made.joint:
        counted[made.single] = 2
    assert 0.99 < epsilon_of_counted(counted, delta=delta) <= 1.0
    # Oracle: one Gaussian whose squared sensitivity over variance is the sum of both counts'.
    told = sum(
        item.cells_per_patient_max / item.noise_multiplier**2 for item in (made.single, made.joint)
    )
    gaussian = epsilon_of((GaussianVector(1 / math.sqrt(told)),), delta=delta)
    assert gaussian == pytest.approx(1.0, rel=0.01)
    shares = [
        item.cells_per_patient_max / item.noise_multiplier**2 for item in (made.single, made.joint)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)


def test_counts_that_no_noise_can_keep_are_refused() -> None:
    with pytest.raises(AccountingError):
        calibrate_selection(
            epsilon=1e-4,
            delta=1e-9,
            candidates=10_000,
            joint_candidates=100,
            part=PART,
        )
