"""The shortened plan is the same study with fewer features, as a file that a person reviews."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from common.errors import StoreError
from common.ids import parse_study_id
from common.study.plan import StudyPlan
from common.study.plan_file import parse_plan, plan_digest, read_plan
from server.noisy_tables import Information
from server.relevance import Fate, Relevance
from server.shortened_plan import shorten_plan, shortened_text, write_new_file
from tests.lib.plans import EXAMPLES, make_plan
from tests.lib.selecting import selecting_plan


def ranking(plan: StudyPlan, kept: set[int]) -> tuple[Relevance, ...]:
    return tuple(
        Relevance(
            place=place,
            name=feature.name,
            present_share=0.5,
            information=Information(0.02, 0.01, 0.03, 1e-3),
            is_told=True,
            joint_rank=None,
            joint_information=None,
            fate=Fate.JOINT if place in kept else Fate.LESS,
        )
        for place, feature in enumerate(plan.features)
    )


def text_of(plan: StudyPlan, kept: set[int]) -> str:
    return shortened_text(
        plan, ranking(plan, kept), plan_digest=plan_digest(plan), epsilon_spent=0.97
    )


def test_the_written_plan_is_the_same_study_with_the_kept_features_and_another_id() -> None:
    plan = selecting_plan()
    text = text_of(plan, {0, 3, 20})
    short = parse_plan(text.encode(), source="short.toml")
    assert short == shorten_plan(plan, ranking(plan, {0, 3, 20}))
    assert [item.name for item in short.features] == ["code_0", "code_3", "sex"]
    assert short.study.id == "small-study-short"
    assert short.selection is None
    same = {"features": plan.features, "study": plan.study, "selection": plan.selection}
    assert short.model_copy(update=same) == plan
    assert plan_digest(short) != plan_digest(plan)


def test_it_says_why_each_candidate_goes_and_what_was_spent() -> None:
    plan = selecting_plan()
    text = text_of(plan, {0, 20})
    assert "#   code_7 (LOCAL/7): dropped: others tell more" in text
    assert "# code_0 (LOCAL/0): kept: tells most" in text
    assert "epsilon 0.9700 at delta 1e-05" in text
    assert plan_digest(plan)[:16] in text


@pytest.mark.parametrize("name", ["heart-disease.toml", "stroke-outcome.toml"])
def test_every_part_of_the_example_plans_survives(name: str) -> None:
    plan = read_plan(EXAMPLES / name)
    everything = set(range(len(plan.features)))
    short = parse_plan(text_of(plan, everything).encode(), source=name)
    assert short == shorten_plan(plan, ranking(plan, everything))


def test_cohorts_with_tables_in_tables_and_texts_with_quotes_survive() -> None:
    event = {"description": 'A "stroke", with \\ and ü', "codes": ["SNOMED/230690007"]}
    plan = make_plan(
        cohort__index_date=event | {"occurrence": "first"},
        cohort__require=[event | {"days_before": 30}, event | {"days_before": 60}],
        study__purpose="First line\nsecond\tline = [1]\n[study]",
        label__above=1e-7,
        label__unit="mmol/L",
    )
    text = text_of(plan, {0, 1, 2})
    short = parse_plan(text.encode(), source="short.toml")
    assert short == shorten_plan(plan, ranking(plan, {0, 1, 2}))
    assert tomllib.loads(text)["study"]["purpose"] == plan.study.purpose


def test_a_long_id_keeps_room_for_its_ending_and_another_id_can_be_given() -> None:
    plan = make_plan(study__id="a" * 63)
    assert shorten_plan(plan, ranking(plan, {0})).study.id == "a" * 57 + "-short"
    named = shorten_plan(plan, ranking(plan, {0}), study_id=parse_study_id("second"))
    assert named.study.id == "second"


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    write_new_file(path, "first")
    with pytest.raises(StoreError):
        write_new_file(path, "second")
    assert path.read_text() == "first"
    with pytest.raises(StoreError):
        write_new_file(tmp_path / "nowhere" / "short.toml", "text")
