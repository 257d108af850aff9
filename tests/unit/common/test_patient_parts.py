"""Three disjoint parts of patients, each with the whole budget."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.privacy.accountant import epsilon_of_counted
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import PATIENT_HASH_PARTS
from common.privacy.patient_parts import patient_parts, share_of
from common.study.plan import Evaluation
from common.study.plan_file import plan_digest
from tests.lib.plans import make_plan

SHARE = st.floats(0.01, 0.44)


@given(held_out=SHARE, tuning=st.none() | SHARE)
def test_parts_are_disjoint_and_hold_everybody(held_out: float, tuning: float | None) -> None:
    evaluation = Evaluation(
        held_out_fraction=held_out, tuning_fraction=tuning, score_bins=10, releases=2
    )
    parts = patient_parts(evaluation)
    found = [parts.held_out, *([parts.tuning] if parts.tuning else []), parts.training]
    assert found[0].first == 0 and found[-1].stop == PATIENT_HASH_PARTS
    for before, after in itertools.pairwise(found):
        assert before.stop == after.first
    assert share_of(parts.training) == pytest.approx(evaluation.training_fraction, abs=2e-6)


def test_held_out_patients_are_the_same_with_and_without_tuning() -> None:
    with_tuning = make_plan(evaluation__tuning_fraction=0.1).evaluation
    assert patient_parts(with_tuning).held_out == patient_parts(make_plan().evaluation).held_out


def test_each_part_spends_at_most_the_plans_epsilon_and_hardly_less() -> None:
    plan = make_plan(evaluation__tuning_fraction=0.1, evaluation__releases=4)
    planned = plan_mechanisms(plan)
    assert planned.tuning_per_release is not None
    assert [planned.evaluation_of(number).part for number in planned.evaluation_rounds] == [
        *[planned.tuning_per_release.part] * 3,
        planned.evaluation_per_release.part,
    ]
    by_part: dict[object, dict[object, int]] = {}
    for record, times in planned.counted:
        by_part.setdefault(record.part, {})[record] = times
    assert len(by_part) == 3
    for counted in by_part.values():
        spent = epsilon_of_counted(counted, delta=plan.privacy.delta)  # type: ignore[arg-type]
        assert 0.99 * plan.privacy.epsilon <= spent <= plan.privacy.epsilon


def test_a_plan_without_tuning_keeps_its_digest() -> None:
    assert plan_digest(make_plan()) != plan_digest(make_plan(evaluation__tuning_fraction=0.1))
