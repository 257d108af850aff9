"""A selection in words: what its two counts let out of a site, and what it is not."""

from __future__ import annotations

import math

from common.errors import PlanError
from common.privacy.calibration import plan_mechanisms
from common.study.contingency import JOINT_ROUND, cell_count, count_tables
from common.study.plan import StudyPlan


def check_trains(plan: StudyPlan) -> None:
    """Refuse a plan that only selects, where one that trains is needed; raises `PlanError`."""
    if plan.selection is not None:
        raise PlanError(
            f"the plan {plan.study.id} only selects and trains nothing",
            expected="a plan without [selection]",
            arrived="a plan with [selection]",
            todo="run `cohortium-coordinator select` with it, and take the plan that it proposes",
        )


def words_of_count(plan: StudyPlan, round_number: int) -> str:
    """Return what one count of a plan that selects lets out, in one sentence."""
    selection, chosen = plan_mechanisms(plan).selection, plan.selection
    if selection is None or chosen is None:
        return ""
    noise = selection.of_round(round_number).noise_multiplier
    if round_number == JOINT_ROUND:
        return (
            f"noised counts of patients in {math.comb(chosen.joint_candidates, 2)} tables: for "
            f"each pair of the {chosen.joint_candidates} candidates that the first count showed to "
            f"tell most, their classes by outcome; every count is off by about {noise:.0f}"
        )
    tables = count_tables(plan)
    return (
        f"{cell_count(tables)} noised counts of patients in {len(tables)} tables: for each "
        f"candidate, its classes by outcome; every count is off by about {noise:.0f}"
    )


def words_of_selection(plan: StudyPlan) -> str:
    """Return what a plan that selects lets out in all, in two sentences."""
    return (
        "nothing is trained; patients who are not held out are counted twice. First "
        f"{words_of_count(plan, 1)}. Then {words_of_count(plan, JOINT_ROUND)}"
    )
