"""Canonical plan bytes: round trip for any plan, and every mutated byte is refused by us."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PlanError
from common.study.plan_bytes import plan_bytes, plan_digest
from common.study.plan_draft import draft_of
from common.study.plan_file import parse_plan, plan_from_bytes
from common.study.problems import PlanProblems
from common.study.rules import RULES
from tests.lib.plans import EXAMPLES, make_document, make_plan

BYTES = plan_bytes(make_plan(privacy__noise_multiplier=4.0))
NUMBERS = {rule.number for rule in RULES}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.just("kind"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: str = "") -> list[str]:
    """Every path of a document, in the form `make_document` takes."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[str] = []
    for key, item in items:
        here = f"{path}__{key}" if path else str(key)
        found.append(here)
        if isinstance(item, dict | list):
            found += places(item, here)
    return found


@settings(deadline=None)
@given(
    epsilon=st.floats(1, 20),
    learning_rate=st.floats(1e-6, 0.5),
    title=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1),
    clip=st.tuples(st.floats(0, 59), st.floats(60, 120)),
)
def test_any_plan_reads_back_from_its_bytes(
    epsilon: float, learning_rate: float, title: str, clip: tuple[float, float]
) -> None:
    plan = make_plan(
        privacy__epsilon=epsilon,
        privacy__noise_multiplier=20.0,
        training__optimizer__learning_rate=learning_rate,
        training__update_norm_max=1e6,
        study__title=title,
        features__0__clip=list(clip),
    )
    again = plan_from_bytes(plan_bytes(plan))
    assert again == plan
    assert plan_digest(again) == plan_digest(plan)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(BYTES) - 1), byte=st.integers(0, 255))
def test_a_mutated_byte_is_refused_or_is_another_plan(place: int, byte: int) -> None:
    mutated = BYTES[:place] + bytes([byte]) + BYTES[place + 1 :]
    try:
        plan = plan_from_bytes(mutated)
    except PlanError:
        return
    assert plan_bytes(plan) == mutated


@settings(deadline=None, max_examples=400)
@given(path=st.sampled_from(places(make_document())), value=VALUES)
def test_any_value_anywhere_is_a_plan_or_a_list_of_numbered_problems(
    path: str, value: object
) -> None:
    draft = draft_of(make_document(**{path: value}))
    assert (draft.plan is None) == bool(draft.problems)
    for problem in draft.problems:
        assert problem.number in NUMBERS
        assert problem.path
        assert problem.found
        assert problem.expected
        assert problem.todo


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_a_plan_or_a_list_of_problems(data: st.DataObject) -> None:
    content = (EXAMPLES / "heart-disease.toml").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(max_size=4))
    try:
        parse_plan(content[:place] + damage + content[place + 1 :], source="x")
    except PlanProblems as error:
        assert error.problems
