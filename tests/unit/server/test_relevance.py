"""The ranking of candidates: sparsity, then information, then what they tell together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from common.study.contingency import count_tables
from common.study.plan import StudyPlan
from server.noisy_tables import NoisyTable, split_tables
from server.relevance import Fate, joint_candidates, rank_candidates
from site_client.features.matrix import FeatureMatrix
from site_client.training.counts import candidate_classes, exact_counts
from tests.lib.plans import make_plan
from tests.lib.selecting import COPY, PLANTED, RARE, planted_patients, selecting_plan

PATIENTS = 60_000


def tables_of(
    plan: StudyPlan, patients: FeatureMatrix, candidates: tuple[int, ...] = ()
) -> tuple[NoisyTable, ...]:
    tables = count_tables(plan, candidates)
    return split_tables(exact_counts(patients, tables, plan=plan), tables, noise=0.0)


def ranked(plan: StudyPlan, patients: FeatureMatrix) -> tuple:
    singles = tables_of(plan, patients)
    best = joint_candidates(plan, singles)
    joints = tables_of(plan, patients, best)
    pairs = {(item.candidates[0], item.candidates[1]): item for item in joints}
    return best, rank_candidates(plan, singles, pairs)


def slow_jmi(classes: list[np.ndarray], y: np.ndarray, kept: list[int], waiting: set[int]) -> list:
    """Yang and Moody 1999, from the patients themselves."""
    order: list[int] = []
    while waiting:
        scores = {
            place: sum(
                mutual_info_score(100 * classes[place] + classes[other], y) for other in kept
            )
            if kept
            else mutual_info_score(classes[place], y)
            for place in waiting
        }
        best = max(scores, key=scores.__getitem__)
        order.append(best)
        kept = [*kept, best]
        waiting = waiting - {best}
    return order


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_noise_the_order_is_that_of_joint_mutual_information(seed: int) -> None:
    plan = selecting_plan()
    patients = planted_patients(plan, PATIENTS, seed=seed)
    best, ranking = ranked(plan, patients)
    classes = candidate_classes(patients, plan)
    turns = {item.place: item.joint_rank for item in ranking if item.joint_rank is not None}
    found = sorted(turns, key=lambda place: turns[place] or 0)
    fixed = [place for place in best if plan.features[place].name == "sex"]
    expected = slow_jmi(classes, patients.y.astype(int), fixed, set(found))
    assert found == expected
    assert set(best) >= {0, 1, 2, 3, 4}


def test_without_noise_the_single_information_orders_the_candidates() -> None:
    plan = selecting_plan()
    patients = planted_patients(plan, PATIENTS, seed=3)
    _, ranking = ranked(plan, patients)
    classes = candidate_classes(patients, plan)
    for item in ranking:
        truth = mutual_info_score(classes[item.place], patients.y.astype(int))
        assert item.information.value == pytest.approx(truth, abs=2e-4)


def test_every_candidate_has_its_fate() -> None:
    plan = selecting_plan()
    fates = {
        item.name: item.fate for item in ranked(plan, planted_patients(plan, PATIENTS, seed=4))[1]
    }
    assert len(fates) == 21
    assert fates["sex"] is Fate.FIXED
    assert all(fates[name] is Fate.JOINT for name in PLANTED)
    assert fates[RARE] is Fate.SPARSE
    assert fates[COPY] is Fate.JOINT
    assert sum(fate is Fate.NOISE for fate in fates.values()) >= 12


def test_what_is_always_kept_counts_and_is_first() -> None:
    plan = selecting_plan(selection__always_keep=["code_5", "code_9"], selection__keep=4)
    _, ranking = ranked(plan, planted_patients(plan, PATIENTS, seed=5))
    kept = [item for item in ranking if item.is_kept]
    assert len(kept) == 4
    assert {item.name for item in kept[:3]} == {"code_5", "code_9", "sex"}
    assert all(item.fate is Fate.FIXED for item in kept[:3])
    assert [item.is_kept for item in ranking] == sorted(
        (item.is_kept for item in ranking), reverse=True
    )


def test_places_left_after_the_pairs_go_to_the_best_of_the_others() -> None:
    plan = selecting_plan(selection__joint_candidates=2)
    _, ranking = ranked(plan, planted_patients(plan, PATIENTS, seed=6))
    fates = {item.name: item.fate for item in ranking}
    assert sum(fate is Fate.JOINT for fate in fates.values()) == 2
    told = [name for name in (*PLANTED, COPY) if fates[name] is Fate.SINGLE]
    assert len(told) == 3


def test_fewer_are_kept_than_asked_for_when_the_rest_is_noise() -> None:
    plan = selecting_plan(selection__keep=18)
    _, ranking = ranked(plan, planted_patients(plan, PATIENTS, seed=7))
    assert 6 <= sum(item.is_kept for item in ranking) < 18


def test_the_pairs_are_always_those_of_the_planned_number_even_of_noise_alone() -> None:
    plan = selecting_plan()
    rng = np.random.default_rng(0)
    noise = tuple(
        NoisyTable(table.candidates, rng.normal(0, 50, (table.cells // 2, 2)), 50.0)
        for table in count_tables(plan)
    )
    chosen = joint_candidates(plan, noise)
    assert len(chosen) == 8
    assert list(chosen) == sorted(set(chosen))
    pairs = {
        pair: NoisyTable(pair, rng.normal(0, 50, (9, 2)), 50.0)
        for pair in itertools.combinations(chosen, 2)
    }
    kept = [item.name for item in rank_candidates(plan, noise, pairs) if item.is_kept]
    assert "sex" in kept


def test_a_plan_that_trains_ranks_nothing() -> None:
    assert joint_candidates(make_plan(), ()) == ()
    assert rank_candidates(make_plan(), (), {}) == ()
