"""The feature catalogue: every entry is a valid feature of a plan, and a plan holds it in full."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from common.study.catalogue.entries import AGGREGATES, Entry, read_catalogue
from common.study.catalogue.expansion import CHANGES, feature_of
from common.study.catalogue.page import catalogue_page
from common.study.code_digits import is_mistyped
from common.study.code_prefix import is_misused_star
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.study.plan_file import parse_plan, plan_bytes, plan_digest, plan_from_bytes, read_plan
from common.study.plan_toml import plan_toml
from tests.lib.plans import EXAMPLES, make_document, make_plan, problems_of

CATALOGUE = read_catalogue()
TERMS = [term for entry in CATALOGUE.entries.values() for term in entry.terms()]
ALONE = {"fairness_groups": [], "monitoring": ..., "label__codes": ["MEDS/DEATH"]}


def test_the_catalogue_has_at_least_eighty_entries_and_every_group_of_the_field() -> None:
    assert len(CATALOGUE.entries) >= 80
    groups = {entry.group for entry in CATALOGUE.entries.values()}
    assert groups == set(CATALOGUE.groups)
    assert {"demographics", "vital_signs", "blood_gases", "chemistry", "haematology"} <= groups
    assert {"comorbidities", "drugs"} <= groups


def test_no_name_stands_in_two_groups() -> None:
    names: list[str] = []
    for path in Path("common/study/catalogue/data").glob("*.toml"):
        if path.stem != "catalogue":
            names += tomllib.loads(path.read_text())
    assert sorted(names) == sorted(CATALOGUE.entries)


def test_every_term_is_a_valid_feature_of_a_plan() -> None:
    features = [{"from_catalogue": term} for term in TERMS]
    plan = make_plan(features=features, **ALONE)
    assert len(plan.features) == len(TERMS)
    for term, feature in zip(TERMS, plan.features, strict=True):
        assert feature.name == term.replace(".", "_")
        assert feature.description.endswith(f"(feature catalogue {CATALOGUE.version}: {term})")
        if isinstance(feature, NumericFeature) and "." in term:
            assert feature.aggregate == term.partition(".")[2]


@pytest.mark.parametrize("entry", CATALOGUE.entries.values(), ids=lambda entry: entry.name)
def test_an_entry_cites_what_the_catalogue_lists_and_its_codes_are_sound(entry: Entry) -> None:
    assert set(entry.verified) | set(entry.ranges) <= set(CATALOGUE.sources)
    codes = entry.plan_codes()
    assert codes
    assert len(set(codes)) == len(codes)
    assert not [code for code in codes if is_mistyped(code) or is_misused_star(code)]
    measured = entry.kind in ("measurement", "age")
    assert measured == (entry.unit is not None) == (entry.plausible_range is not None)
    if entry.plausible_range is not None and entry.clip is not None:
        low, high = entry.plausible_range
        assert low <= entry.clip[0] < entry.clip[1] <= high
    assert (entry.kind == "category") == (len(entry.levels) >= 2)


def test_every_source_is_cited() -> None:
    cited = {key for entry in CATALOGUE.entries.values() for key in entry.verified + entry.ranges}
    assert cited == set(CATALOGUE.sources)


def test_a_plan_holds_the_whole_definition_and_stays_itself_without_the_catalogue() -> None:
    taken = make_plan(features__1={"from_catalogue": "creatinine.last"})
    written = make_plan(features__1=feature_of("creatinine.last"))
    assert plan_digest(taken) == plan_digest(written)
    stored = plan_bytes(taken)
    assert b"from_catalogue" not in stored
    assert plan_from_bytes(stored) == taken
    entry = CATALOGUE.entries["creatinine"]
    feature = taken.features[1]
    assert isinstance(feature, NumericFeature)
    assert feature.codes == entry.plan_codes()
    assert (feature.unit, feature.analyte, feature.clip) == (entry.unit, entry.analyte, entry.clip)


def test_stored_bytes_take_nothing_from_the_catalogue() -> None:
    document = make_document(features__1={"from_catalogue": "creatinine.last"})
    from common.study.plan_draft import draft_of

    assert draft_of(document, is_stored=True).plan is None


def test_the_list_at_the_top_comes_after_the_written_features() -> None:
    plan = make_plan(from_catalogue=["heart_rate.mean", "heart_failure.any"])
    names = [feature.name for feature in plan.features]
    assert names == ["age", "systolic_bp", "sex", "heart_rate_mean", "heart_failure_any"]
    alone = make_plan(features=..., from_catalogue=["heart_rate.mean"], **ALONE)
    assert [feature.name for feature in alone.features] == ["heart_rate_mean"]


def test_what_a_plan_changes_is_in_the_feature() -> None:
    changes = {
        "name": "kidney",
        "description": "The kidney",
        "window_days": 2,
        "plausible_range": [0.2, 30],
        "clip": [0.5, 5],
        "unit_if_missing": "umol/L",
        "missing": "indicator",
        "time_bins": 4,
    }
    assert set(changes) == set(CHANGES)
    feature = make_plan(features__1={"from_catalogue": "creatinine.max", **changes}).features[1]
    assert isinstance(feature, NumericFeature)
    assert feature.description.startswith("The kidney (feature catalogue")
    assert (feature.name, feature.window_days, feature.aggregate) == ("kidney", 2, "max")
    assert (feature.plausible_range, feature.clip) == ((0.2, 30), (0.5, 5))
    assert (feature.unit_if_missing, feature.time_bins) == ("umol/L", 4)
    surely = {"from_catalogue": "creatinine.max", "missing": "none_allowed"}
    assert make_plan(features__1=surely).features[1].missing == "none_allowed"


def test_the_time_since_a_record_is_clipped_to_the_window() -> None:
    term = {"from_catalogue": "lactate.time_since", "window_days": 14}
    feature = make_plan(features__1=term).features[1]
    assert isinstance(feature, NumericFeature)
    assert (feature.unit, feature.clip) == ("d", (0, 14))


def test_age_and_sex_are_taken_by_their_names_alone() -> None:
    plan = make_plan(
        features=[{"from_catalogue": "age"}, {"from_catalogue": "sex"}], monitoring=...
    )
    age, sex = plan.features
    assert isinstance(age, NumericFeature)
    assert isinstance(sex, CategoricalFeature)
    assert (age.name, sex.name, sex.levels) == ("age", "sex", ("female", "male"))


def only(number: str, path: str, todo: str, **changes: object) -> None:
    problems = problems_of(**changes)
    assert [(item.number, item.path) for item in problems] == [(number, path)]
    assert todo in problems[0].todo


@pytest.mark.parametrize(
    ("term", "todo"),
    [
        ("creatinin.last", "write creatinine.last"),
        ("heart_rat.mean", "write heart_rate.mean"),
        ("creatinine", "plan catalogue"),
        ("creatinine.latest", "plan catalogue"),
        ("heart_failure.last", "plan catalogue"),
        ("age.last", "plan catalogue"),
        (7, "plan catalogue"),
        (["creatinine.last"], "plan catalogue"),
    ],
)
def test_p33_a_term_that_is_not_there_is_one_problem_with_what_is_near(
    term: object, todo: str
) -> None:
    path = "features[1].from_catalogue"
    only("P33", path, todo, features__1={"from_catalogue": term})


def test_p33_the_list_at_the_top_is_named_by_its_own_places() -> None:
    only(
        "P33",
        "from_catalogue[1]",
        "write sodium.last",
        from_catalogue=["heart_rate.last", "sodum.last"],
    )
    only("P33", "from_catalogue", "plan catalogue", from_catalogue="age")
    only("P6", "from_catalogue[0].name", "rename", from_catalogue=["sex"])


def test_p33_a_change_that_is_not_allowed_is_named_by_its_key() -> None:
    changed = {"from_catalogue": "creatinine.last", "windw_days": 3}
    only("P33", "features[1].windw_days", "write window_days", features__1=changed)
    changed = {"from_catalogue": "creatinine.last", "codes": ["LOINC/2160-0"]}
    only("P33", "features[1].codes", "write the feature out", features__1=changed)


def test_thousands_of_wrong_terms_are_told_one_by_one() -> None:
    found = problems_of(from_catalogue=[f"creatinin{place}" for place in range(3000)])
    assert [item.number for item in found] == ["P33"] * 3000
    assert len([item for item in found if item.todo.startswith("write ")]) == 20


def test_a_wrong_change_is_told_where_it_stands() -> None:
    term = {"from_catalogue": "creatinine.last", "clip": [5, 1]}
    only("P9", "features[1].clip", "public bounds", features__1=term)
    term = {"from_catalogue": "creatinine.last", "window_days": "a week"}
    only("P4", "features[1].window_days", "correct", features__1=term)


def test_a_term_that_is_not_there_hides_no_other_problem() -> None:
    found = problems_of(features__1={"from_catalogue": "no"}, privacy__delta=0.005)
    assert [(item.number, item.path) for item in found] == [
        ("P22", "privacy.delta"),
        ("P33", "features[1].from_catalogue"),
    ]


def test_a_shown_plan_reads_back_as_the_same_plan() -> None:
    for path in sorted(EXAMPLES.glob("*.toml")):
        if path.name.endswith(".site.toml"):
            continue
        plan = read_plan(path)
        text = plan_toml(plan)
        assert "from_catalogue" not in text
        assert parse_plan(text.encode(), source="shown") == plan


def test_a_shown_plan_reads_back_whatever_its_texts_hold() -> None:
    said = 'A "quoted" \\ text\nof two lines, ünïcode, \t tab'
    plan: StudyPlan = make_plan(study__purpose=said, from_catalogue=TERMS[5:50:7])
    assert parse_plan(plan_toml(plan).encode(), source="shown") == plan


def test_the_page_is_made_from_the_data_files() -> None:
    page = (EXAMPLES.parent / "feature-catalogue.md").read_text()
    assert page == catalogue_page(CATALOGUE)


def test_every_kind_of_entry_has_entries() -> None:
    assert {entry.kind for entry in CATALOGUE.entries.values()} == set(AGGREGATES)
