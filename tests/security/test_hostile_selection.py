"""Selections under attack: a coordinator that asks for more, and sites that answer with lies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import UpdateRefused
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.counts import count_question_digest, decode_counts, encode_counts
from common.protocol.messages import (
    EvaluationCounts,
    RefusedTask,
    ReleasedTask,
    TaskKind,
)
from common.study.columns import initial_parameters, parameter_shapes
from common.study.contingency import cell_count, count_tables
from common.study.plan_file import plan_digest
from server.update_checks import Expectation, SiteMemory, check_release
from tests.lib.plans import make_plan
from tests.lib.selecting import AskedSite, planted_patients, selecting_plan

PLAN = selecting_plan()
PAIRS = (0, 1, 2, 3, 4, 6, 7, 20)
OTHER_PAIRS = (0, 1, 2, 3, 4, 6, 8, 20)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[AskedSite]:
    site = AskedSite(tmp_path, PLAN, planted_patients(PLAN, 400, seed=1))
    yield site
    site.sites.close()


def refused(reply: ReleasedTask | RefusedTask) -> str:
    assert isinstance(reply, RefusedTask)
    return reply.number


def released(reply: ReleasedTask | RefusedTask) -> ReleasedTask:
    assert isinstance(reply, ReleasedTask), reply
    return reply


def test_r9_other_pairs_after_the_pairs_are_refused(asked: AskedSite) -> None:
    released(asked.count(1))
    first = released(asked.count(2, PAIRS))
    assert refused(asked.count(2, OTHER_PAIRS)) == "R9"
    assert released(asked.count(2, PAIRS)).update == first.update


def test_the_same_count_asked_anew_gets_the_same_bytes_and_is_charged_once(
    asked: AskedSite,
) -> None:
    first = released(asked.count(1))
    again = released(asked.count(1))
    assert again == first
    joint = released(asked.count(2, PAIRS))
    assert first.statement.epsilon_spent < joint.statement.epsilon_spent <= PLAN.privacy.epsilon
    assert released(asked.count(2, PAIRS)) == joint


def test_r9_single_candidates_after_the_pairs_are_refused_when_not_kept(asked: AskedSite) -> None:
    released(asked.count(2, PAIRS))
    assert refused(asked.count(1)) == "R9"


@pytest.mark.parametrize("number", [3, 4, 5])
def test_r8_a_third_count_is_refused(asked: AskedSite, number: int) -> None:
    assert refused(asked.count(number, PAIRS)) == "R8"


@pytest.mark.parametrize(
    ("number", "candidates"),
    [
        (1, PAIRS),  # pairs in the round of single candidates
        (2, ()),  # single candidates a second time
        (2, PAIRS[:-1]),
        (2, (*PAIRS, 9999)),
        (2, (*PAIRS[:-1], 21)),  # a place behind the last feature
    ],
)
def test_r20_other_candidates_than_the_plan_allows_are_refused(
    asked: AskedSite, number: int, candidates: tuple[int, ...]
) -> None:
    assert refused(asked.count(number, candidates)) == "R20"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"candidates":[1,1],"version":1}', b"\xff" * 30])
def test_r20_bytes_that_are_no_candidates_are_refused(asked: AskedSite, body: bytes) -> None:
    changed = {"parameters": body, "base_version": count_question_digest(body)}
    assert refused(asked.count(2, **changed)) == "R20"


def test_r20_another_question_under_the_digest_is_refused(asked: AskedSite) -> None:
    other = count_question_digest(b"another")
    assert refused(asked.count(2, PAIRS, base_version=other)) == "R20"


@pytest.mark.parametrize("kind", [TaskKind.TRAIN, TaskKind.EVALUATE])
def test_r8_a_plan_that_selects_trains_and_evaluates_nothing(
    asked: AskedSite, kind: TaskKind
) -> None:
    model = encode_parameters(initial_parameters(PLAN))
    changes = {"kind": kind, "parameters": model, "base_version": parameters_digest(model)}
    for evaluate in (True, False):
        if kind is TaskKind.TRAIN or evaluate:
            assert refused(asked.count(1, evaluate=evaluate, **changes)) == "R8"


def test_r8_a_plan_that_selects_releases_no_sums_for_scaling(tmp_path: Path) -> None:
    plan = selecting_plan(scaling={"kind": "dp_mean_variance"})
    site = AskedSite(tmp_path, plan, planted_patients(plan, 400, seed=1))
    empty = {"parameters": b"", "base_version": parameters_digest(b"")}
    assert refused(site.count(0, kind=TaskKind.SCALE, **empty)) == "R8"
    released(site.count(1))
    site.sites.close()


def test_r8_a_plan_that_trains_counts_nothing(tmp_path: Path) -> None:
    plan = make_plan()
    patients = planted_patients(PLAN, 100, seed=0)
    site = AskedSite(tmp_path, plan, replace(patients, x=patients.x[:, :6]))
    assert refused(site.count(1)) == "R8"
    assert refused(site.count(2, (0, 1))) == "R8"
    site.sites.close()


def test_r6_a_selection_with_more_pairs_is_another_plan(asked: AskedSite) -> None:
    more = selecting_plan(selection__joint_candidates=9)
    assert refused(asked.count(1, plan_digest=plan_digest(more))) == "R6"


# What a site may send.

TABLES = count_tables(PLAN)
CELLS = cell_count(TABLES)
MECHANISM = plan_mechanisms(PLAN).counted[0][0]
assert isinstance(MECHANISM, DiscreteGaussianCounts)
QUESTION = count_question_digest(b"question")
EXPECTED = Expectation(
    study_id=StudyId(PLAN.study.id),
    plan_digest=plan_digest(PLAN),
    round_number=1,
    kind=TaskKind.COUNT,
    is_evaluated=False,
    base_version=QUESTION,
    shapes=parameter_shapes(PLAN),
    update_norm_max=PLAN.training.update_norm_max,
    mechanisms=(MECHANISM,),
    score_bins=PLAN.evaluation.score_bins,
    cells=CELLS,
)
MEMORY = SiteMemory(releases=frozenset(), cohort_size=None, cohort_size_max=1000)


def honest(asked: AskedSite) -> ReleasedTask:
    return replace(released(asked.count(1)), base_version=QUESTION)


def with_count(count: int) -> Callable[[ReleasedTask], ReleasedTask]:
    def lie(reply: ReleasedTask) -> ReleasedTask:
        counts = decode_counts(reply.update, cells=CELLS)
        counts[CELLS // 2] = count
        return replace(reply, update=encode_counts(counts.tolist()))

    return lie


LIES: dict[str, tuple[str, Callable[[ReleasedTask], ReleasedTask]]] = {
    "a huge count": ("U16", with_count(2**31 - 1)),
    "a count beyond twice its cohort": ("U16", with_count(1_300)),
    "a count far below zero": ("U16", with_count(-5_000)),
    "not a number, as float32": (
        "U16",
        lambda reply: replace(reply, update=struct.pack(f"<{CELLS}f", *[np.nan] * CELLS)),
    ),
    "a cell less": ("U16", lambda reply: replace(reply, update=reply.update[:-4])),
    "half a cell": ("U16", lambda reply: replace(reply, update=reply.update[:-2])),
    "nothing": ("U16", lambda reply: replace(reply, update=b"")),
    "a cell more": ("U7", lambda reply: replace(reply, update=reply.update + b"\0" * 4)),
    "less noise": (
        "U11",
        lambda reply: replace(reply, mechanisms=(replace(MECHANISM, noise_multiplier=1.0),)),
    ),
    "no noise": ("U11", lambda reply: replace(reply, mechanisms=())),
    "an answer to another question": (
        "U6",
        lambda reply: replace(reply, base_version=Digest("0" * 64)),
    ),
    "an evaluation beside it": (
        "U13",
        lambda reply: replace(
            reply, evaluation=EvaluationCounts(QUESTION, ((1,) * 10, (1,) * 10), 2.0)
        ),
    ),
    "a larger cohort than admitted": (
        "U14",
        lambda reply: replace(reply, declared_cohort_size=1001),
    ),
}


def test_an_honest_count_is_accepted_and_a_second_time_not(asked: AskedSite) -> None:
    reply = honest(asked)
    assert check_release(reply, expectation=EXPECTED, memory=MEMORY) == {}
    known = replace(MEMORY, releases=frozenset({ReleaseId(reply.release_id)}))
    with pytest.raises(UpdateRefused) as caught:
        check_release(reply, expectation=EXPECTED, memory=known)
    assert caught.value.number == "U12"


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_about_counts_is_refused_with_its_number(asked: AskedSite, lie: str) -> None:
    number, change = LIES[lie]
    with pytest.raises(UpdateRefused) as caught:
        check_release(change(honest(asked)), expectation=EXPECTED, memory=MEMORY)
    assert caught.value.number == number
