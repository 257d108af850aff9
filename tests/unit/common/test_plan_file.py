"""Plan files: syntax, shape, canonical bytes, digest and schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common import limits
from common.canonical import digest_bytes
from common.errors import PlanError
from common.study.plan_file import (
    parse_plan,
    plan_bytes,
    plan_digest,
    plan_from_bytes,
    plan_schema,
    read_plan,
)
from common.study.problems import PlanProblems, Problem
from tests.lib.plans import EXAMPLES, make_plan, problems_of

HEART = (EXAMPLES / "heart-disease.toml").read_text()


def first_problem(content: bytes) -> Problem:
    with pytest.raises(PlanProblems) as caught:
        parse_plan(content, source="plan.toml")
    return caught.value.problems[0]


@pytest.mark.parametrize("name", ["heart-disease.toml", "stroke-outcome.toml"])
def test_the_example_plans_are_valid(name: str) -> None:
    plan = read_plan(EXAMPLES / name)
    assert plan_from_bytes(plan_bytes(plan)) == plan


def test_p1_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / "none.toml")
    assert caught.value.number == "P1"


def test_p1_a_larger_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (limits.PLAN_FILE_BYTES_MAX + 1))
    with pytest.raises(PlanProblems) as caught:
        read_plan(path)
    assert [problem.number for problem in caught.value.problems] == ["P1"]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b"plan_version = 1\nstudy = [\n", "end of document"),
        (b"plan_version = 1\n\nplan_version = 1\n", "line 3, column 17"),
        (b"a = 1\nb = '\xff'\n", "line 2"),
        (b"a = " + b"[" * 100_000, "the file"),
        (b"a = " + b"1" * 10_000, "the file"),
        (b".".join([b"a"] * 200_000) + b" = 1", "line 1"),
        (b"# fine\n[" + b".".join([b"a"] * 200_000) + b"]\n", "line 2"),
        (b"x=[\n" + b"{a.a.a.a.a.a.a.a.a.a=[\n" * 300 + b"1", "the file"),
    ],
)
def test_p1_wrong_syntax_is_told_with_its_place(content: bytes, path: str) -> None:
    problem = first_problem(content)
    assert (problem.number, problem.path) == ("P1", path)


def test_p2_an_unknown_key_is_told_with_the_known_ones() -> None:
    problems = problems_of(training__optimizer__learning_rat=0.1, features__2__level=[], extra=1)
    assert [problem.number for problem in problems] == ["P2"] * 3
    by_path = {problem.path: problem for problem in problems}
    assert by_path["training.optimizer.learning_rat"].todo == "write learning_rate"
    assert "levels" in by_path["features[2].level"].expected
    assert "plausible_range" not in by_path["features[2].level"].expected
    assert by_path["extra"].todo == "remove it"


def test_p3_a_missing_key_is_told() -> None:
    problems = problems_of(study__title=..., training__strategy={}, features__0__kind=...)
    assert [(problem.number, problem.path) for problem in problems if problem.number == "P3"] == [
        ("P3", "study.title"),
        ("P3", "features[0].kind"),
        ("P3", "training.strategy.kind"),
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plan_version", 2),
        ("study__id", "Small Study"),
        ("study__title", "x" * 5000),
        ("features__0__codes", []),
        ("features__0__codes", ["no-system"]),
        ("features__0__name", "Age"),
        ("features__0__kind", "number"),
        ("features__0__clip", [1, float("nan")]),
        ("features__0__clip", ["1", "2"]),
        ("model", {"kind": "mlp", "hidden": [True]}),
        ("training__rounds", 4.0),
        ("training__rounds", 0),
        ("training__sampling_probability", float("inf")),
        ("training__optimizer__learning_rate", True),
        ("training__optimizer__learning_rate", 10**400),
        ("privacy__epsilon", "3"),
        ("privacy__epsilon", limits.EPSILON_MAX * 2),
        ("privacy__noise_multiplier", "calibrated"),
        ("privacy__neighboring_relation", "replace_one"),
        ("study", "a text"),
        ("features", {}),
    ],
)
def test_p4_a_value_of_the_wrong_type_form_or_range_is_told(path: str, value: object) -> None:
    numbers = {problem.number for problem in problems_of(**{path: value})}
    assert "P4" in numbers
    expected_path = path.split("__", maxsplit=1)[0]
    assert any(problem.path.startswith(expected_path) for problem in problems_of(**{path: value}))


@pytest.mark.parametrize("text", ["\x1b[2Jhidden", "abc\u202ecba", "a\u200bb", "  ", "\r"])
def test_p5_invisible_text_is_refused(text: str) -> None:
    problems = problems_of(study__purpose=text)
    assert [(problem.number, problem.path) for problem in problems] == [("P5", "study.purpose")]
    assert not any(
        character in str(PlanProblems(problems, source="x")) for character in "\x1b\u202e"
    )


def test_keys_of_the_file_cannot_move_the_reader_s_cursor() -> None:
    content = b'"\\u001b[2J" = 1\n"\\u202ex" = " "\n"' + b"k" * 9000 + b'" = 1\n'
    with pytest.raises(PlanProblems) as caught:
        parse_plan(content, source="plan.toml")
    text = str(caught.value)
    assert text.replace("\n", "").isprintable()
    assert max(len(line) for line in text.splitlines()) < 200


def test_p5_joiners_that_languages_need_are_allowed() -> None:
    assert (
        problems_of(
            study__title="\u0645\u06cc\u200c\u0634\u0648\u062f", study__purpose="one\n\ttwo"
        )
        == ()
    )


def test_whole_numbers_may_stand_for_real_ones() -> None:
    assert plan_digest(make_plan(privacy__epsilon=3)) == plan_digest(make_plan())


def test_the_digest_changes_with_every_value() -> None:
    changed = [
        make_plan(privacy__epsilon=3.0000001),
        make_plan(study__title="A small study "),
        make_plan(features__0__missing="indicator"),
        make_plan(privacy__noise_multiplier=4.0),
        make_plan(training__optimizer__momentum=0.1),
    ]
    assert len({plan_digest(plan) for plan in [make_plan(), *changed]}) == 6


def test_the_digest_of_the_heart_plan_does_not_depend_on_layout_or_comments() -> None:
    bare = "\n".join(line for line in HEART.splitlines() if not line.startswith("#"))
    spread = bare.replace(" = ", "  =  ")
    assert plan_digest(parse_plan(spread.encode(), source="x")) == plan_digest(
        read_plan(EXAMPLES / "heart-disease.toml")
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": {"kind": "dp_mean_variance", "epsilon_fraction": 0.3, "deviations_max": 6.0}},
        {
            "scaling": {"kind": "of_warm_start", "deviation_min": 0.02},
            "training__warm_start": {"version": "ab" * 32},
        },
    ],
)
def test_a_plan_with_scaling_reads_back_and_one_without_has_no_such_key(changes: Any) -> None:
    plan = make_plan(**changes)
    assert plan_from_bytes(plan_bytes(plan)) == plan
    assert plan_digest(plan) != plan_digest(make_plan())
    assert b'"scaling"' not in plan_bytes(make_plan())


def test_plan_bytes_are_frozen() -> None:
    assert plan_digest(make_plan()) == (
        "ffcd1212a616da876785207a8a652ea839698dd1c4e3ba7eaaaff46d42a52706"
    )


def test_stored_bytes_read_back_exactly_or_are_refused() -> None:
    data = plan_bytes(
        make_plan(privacy__noise_multiplier=4.0, model={"kind": "mlp", "hidden": [8]})
    )
    assert plan_bytes(plan_from_bytes(data)) == data
    record = json.loads(data)
    for other in (
        b"",
        b"[]",
        b"null",
        b"\xff",
        data + b" ",
        data[:-1],
        json.dumps(record).encode(),
        data.replace(b'"4.0"', b'"4.00"'),
        data.replace(b'"4.0"', b"4.0"),
        data.replace(b'"rounds":4', b'"rounds":"4"'),
        b"[" * 100_000,
    ):
        with pytest.raises(PlanError):
            plan_from_bytes(other)


def test_stored_bytes_that_break_a_rule_are_refused_with_its_number() -> None:
    data = plan_bytes(make_plan()).replace(b'"quorum":2', b'"quorum":1')
    with pytest.raises(PlanProblems) as caught:
        plan_from_bytes(data)
    assert [problem.number for problem in caught.value.problems] == ["P18"]


def test_the_error_shows_every_problem_in_four_parts() -> None:
    with pytest.raises(PlanProblems) as caught:
        make_plan(training__quorum=1, privacy__delta=0.005)
    text = str(caught.value)
    for part in ("[P18] training.quorum", "[P22] privacy.delta", "found:", "expected:", "to do:"):
        assert part in text
    assert caught.value.exit_code == 10
    assert "2 problems" in caught.value.refused


def test_a_plan_with_thousands_of_problems_is_told_shortly() -> None:
    with pytest.raises(PlanProblems) as caught:
        make_plan(features=[{"kind": "numeric"}] * 3000)
    assert len(caught.value.problems) > 3000
    assert len(str(caught.value)) < 50_000


def test_the_schema_names_every_part() -> None:
    schema = plan_schema()
    assert set(schema["properties"]) >= {"study", "cohort", "features", "label", "privacy"}
    assert json.dumps(schema)


def test_the_steward_s_page_explains_every_key() -> None:
    page = (EXAMPLES.parent / "study-plan.md").read_text()
    schema = plan_schema()
    keys = {key for part in schema["$defs"].values() for key in part["properties"]}
    for key in keys:
        assert f"`{key}`" in page, key
    for part in set(schema["properties"]) - {"plan_version"}:
        assert f"[{part}]" in page, part


def test_a_digest_that_was_kept_is_of_the_very_plan_and_of_no_copy_of_it() -> None:
    plan = make_plan()
    first = plan_digest(plan)
    changed = plan.model_copy(update={"fairness_groups": ()})
    assert plan_digest(changed) == digest_bytes("study-plan", plan_bytes(changed)) != first
    for _ in range(200):  # more plans than are kept
        plan_digest(plan.model_copy())
    assert plan_digest(plan) == first
