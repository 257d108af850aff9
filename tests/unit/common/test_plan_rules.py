"""One test for each numbered rule of a study plan, and one for the table itself."""

from __future__ import annotations

import inspect

import pytest

from common import limits
from common.privacy.calibration import plan_mechanisms
from common.study.rules import RULES
from common.study.training_rules import honest_update_norm
from tests.lib.plans import EXAMPLES, make_document, make_plan, problems_of


def only(number: str, path: str, **changes: object) -> None:
    """The changed plan has exactly one problem, with this number at this path."""
    problems = problems_of(**changes)
    assert [(problem.number, problem.path) for problem in problems] == [(number, path)]
    assert all(text.strip() for text in problems[0].as_record().values())


def test_the_valid_plan_has_no_problem() -> None:
    assert problems_of() == ()


def test_numbers_count_up_and_every_rule_has_a_test_and_a_line_in_the_docs() -> None:
    assert [rule.number for rule in RULES] == [f"P{n}" for n in range(1, len(RULES) + 1)]
    tests = "".join(name for name, _ in inspect.getmembers(inspect.getmodule(only)))
    for file in ("test_plan_file.py", "test_catalogue.py"):
        tests += (EXAMPLES.parents[1] / "tests/unit/common" / file).read_text()
    docs = (EXAMPLES.parent / "study-plan.md").read_text()
    for rule in RULES:
        assert f"test_{rule.number.lower()}_" in tests, rule.number
        assert f"| {rule.number} | {rule.says} |" in docs, rule.number


def test_p6_two_features_share_a_name() -> None:
    only("P6", "features[1].name", features__1__name="age", fairness_groups=[])


def test_p7_two_features_make_one_column() -> None:
    only("P7", "features[1].name", features__0__name="systolic_bp__missing", monitoring=...)


@pytest.mark.parametrize("bounds", [[120, 0], [5, 5]])
def test_p8_a_plausible_range_is_not_ordered(bounds: list[int]) -> None:
    problems = problems_of(features__0__plausible_range=bounds)
    assert problems[0].number == "P8"
    assert problems[0].path == "features[0].plausible_range"


@pytest.mark.parametrize("bounds", [[90, 20], [20, 20], [-1, 90], [20, 121]])
def test_p9_clip_bounds_are_not_inside_the_plausible_range(bounds: list[int]) -> None:
    only("P9", "features[0].clip", features__0__clip=bounds)


@pytest.mark.parametrize("levels", [["female", "female"], ["female", "Female"], ["f", "m "]])
def test_p10_levels_are_not_distinct(levels: list[str]) -> None:
    only("P10", "features[2].levels[1]", features__2__levels=levels)


def test_p11_a_code_is_mistyped_or_listed_twice() -> None:
    only("P11", "features[1].codes[0]", features__1__codes=["LOINC/8480-7"])
    only("P11", "label.codes[0]", label__codes=["SNOMED/230609007"])
    only("P11", "features[1].codes[1]", features__1__codes=["LOINC/8480-6", "LOINC/8480-6"])


def test_a_vocabularys_name_may_hold_a_plus_as_dm_plus_d_does() -> None:
    codes = ["dm+d/319775004", "RxNorm/1191"]
    assert make_plan(features__1__codes=codes).features[1].codes == tuple(codes)
    assert problems_of(features__1__codes=["dm d/319775004"])


def test_p12_the_label_is_a_feature() -> None:
    only("P12", "features[0].name", label__name="age")


def test_p13_a_feature_reads_a_code_of_the_label() -> None:
    only(
        "P13",
        "features[1].codes[1]",
        features__1__codes=["LOINC/8480-6", "SNOMED/230690007"],
    )


def test_p14_the_lowest_age_is_above_the_highest() -> None:
    only("P14", "cohort.age_years_min", cohort__age_years_min=101)


def test_p15_a_group_is_no_categorical_feature_or_named_twice() -> None:
    only("P15", "fairness_groups[0].feature", fairness_groups=[{"feature": "age"}])
    only("P15", "fairness_groups[0].feature", fairness_groups=[{"feature": "race"}])
    twice = [{"feature": "sex"}, {"feature": "sex"}]
    only("P15", "fairness_groups[1].feature", fairness_groups=twice)


def test_p16_a_sentinel_is_no_feature_or_named_twice() -> None:
    only("P16", "monitoring.sentinel_features[0]", monitoring__sentinel_features=["weight"])
    only("P16", "monitoring.sentinel_features[1]", monitoring__sentinel_features=["age", "age"])


def test_p17_a_model_is_too_large_for_a_message() -> None:
    wide = {"kind": "mlp", "hidden": [4096] * 5}
    only("P17", "model", model=wide, training__update_norm_max=1e9)


def test_p18_a_round_of_one_site_is_refused() -> None:
    only("P18", "training.quorum", training__quorum=1)


def test_p19_there_are_more_evaluations_than_rounds() -> None:
    only("P19", "evaluation.releases", evaluation__releases=5)
    assert problems_of(evaluation__releases=4) == ()


def test_p20_nearly_nobody_is_held_out() -> None:
    only("P20", "evaluation.held_out_fraction", evaluation__held_out_fraction=1e-7)


def test_p21_the_study_has_too_many_steps() -> None:
    only(
        "P21",
        "training.local_steps",
        training__local_steps=100_000,
        training__rounds=11,
        training__update_norm_max=1e9,
    )


@pytest.mark.parametrize("delta", [1e-11, 2e-3])
def test_p22_delta_is_too_large_or_too_small_to_be_computed(delta: float) -> None:
    only("P22", "privacy.delta", privacy__delta=delta)


def test_p23_given_noise_that_overspends_is_refused_and_enough_noise_is_not() -> None:
    only("P23", "privacy.noise_multiplier", privacy__noise_multiplier=1.0)
    assert problems_of(privacy__noise_multiplier=2.5) == ()


def test_p23_noise_that_cannot_be_accounted_is_refused() -> None:
    only("P23", "privacy.noise_multiplier", privacy__noise_multiplier=0.001)


def test_p23_an_epsilon_that_no_noise_can_keep_is_refused() -> None:
    problems = problems_of(privacy__epsilon=1e-5, training__rounds=1000, training__local_steps=1000)
    assert "P23" in {problem.number for problem in problems}


def test_p24_evaluations_that_no_noise_can_keep_are_refused() -> None:
    changes = {"privacy__epsilon": 1e-6, "privacy__delta": 1e-9}
    assert "P24" in {problem.number for problem in problems_of(**changes)}


def test_p25_a_norm_bound_that_an_honest_small_site_would_fail() -> None:
    only("P25", "training.update_norm_max", training__update_norm_max=1.0)
    needed = honest_update_norm(make_plan(), cohort_size=limits.COHORT_SIZE_MIN)
    assert problems_of(training__update_norm_max=needed) == ()


def test_p26_a_report_that_costs_more_than_the_study_is_refused() -> None:
    only("P26", "monitoring.epsilon_per_report", monitoring__epsilon_per_report=3.5)


def test_p27_a_criterions_window_that_ends_before_it_begins_is_refused() -> None:
    past = {"description": "Stroke", "codes": ["SNOMED/230690007"], "days_before": 30}
    for name in ("require", "exclude"):
        changed = [past, past | {"days_until": 30}]
        only("P27", f"cohort.{name}[1].days_until", **{f"cohort__{name}": changed})


def test_p28_a_bound_without_a_unit_and_a_unit_without_a_bound_are_refused() -> None:
    only("P28", "label.unit", label__above=26.5)
    only("P28", "label.unit", label__unit="umol/L")


def test_p28_bounds_that_leave_no_value_are_refused() -> None:
    only("P28", "label.above", label__above=3.0, label__below=3.0, label__unit="mmol/L")
    assert problems_of(label__above=2.0, label__below=3.0, label__unit="mmol/L") == ()


def test_p29_a_count_in_another_unit_is_refused() -> None:
    for aggregate, unit in (("count", "d"), ("any", "mm[Hg]"), ("time_since", "1")):
        only("P29", "features[1].unit", features__1__aggregate=aggregate, features__1__unit=unit)


def test_p30_time_bins_without_an_indicator_and_of_the_age_are_refused() -> None:
    only(
        "P30", "features[1].missing", features__1__time_bins=4, features__1__missing="none_allowed"
    )
    only("P30", "features[0].time_bins", features__0__time_bins=4, features__0__missing="indicator")


def test_p31_a_recurrent_model_without_one_time_line_is_refused() -> None:
    gru = {"kind": "gru", "width": 4}
    only("P31", "model.kind", model=gru)
    binned = make_document()["features"][1] | {"time_bins": 4, "window_days": 2}
    for key, other in (("time_bins", 5), ("window_days", 3)):
        features = [binned, binned | {"name": "other", key: other}]
        only(
            "P31",
            f"features[1].{key}",
            model=gru,
            features=features,
            fairness_groups=[],
            monitoring=...,
        )
    assert problems_of(model=gru, features__1=binned) == ()


SELECTION = {"keep": 2, "present_share_min": 0.01, "joint_candidates": 3}


def test_p36_what_a_selection_always_keeps_is_no_feature_or_named_twice() -> None:
    for names, place in ((["weight"], 0), (["age", "age"], 1)):
        path = f"selection.always_keep[{place}]"
        only("P36", path, selection=SELECTION | {"always_keep": names})


@pytest.mark.parametrize("keep", [1, 3])  # the sentinel and the group are two of three features
def test_p37_a_selection_that_must_keep_more_or_has_no_choice_is_refused(keep: int) -> None:
    only("P37", "selection.keep", selection=SELECTION | {"keep": keep})


def test_p37_pairs_among_more_candidates_than_there_are_are_refused() -> None:
    changed = SELECTION | {"joint_candidates": 4}
    only("P37", "selection.joint_candidates", selection=changed)


def test_p38_a_candidate_with_too_many_classes_is_refused() -> None:
    levels = [f"level {number}" for number in range(21)]
    only("P38", "features[2].levels", selection=SELECTION, features__2__levels=levels)
    enough = {"features__2__levels": levels[:20]}
    assert problems_of(selection=SELECTION, **enough) == ()


def test_p38_pairs_with_too_many_cells_are_refused() -> None:
    levels = [f"level {number}" for number in range(20)]
    features = [
        {
            "kind": "categorical",
            "name": f"code_{number}",
            "description": "A code",
            "codes": [f"LOCAL/{number}"],
            "levels": levels,
        }
        for number in range(40)
    ]
    only(
        "P38",
        "selection.joint_candidates",
        features=features,
        fairness_groups=...,
        monitoring=...,
        selection=SELECTION | {"joint_candidates": 30},
    )


def test_p39_counts_that_no_noise_can_keep_are_refused() -> None:
    changes = {"privacy__epsilon": 1e-6, "privacy__delta": 1e-9, "selection": SELECTION}
    assert "P39" in {problem.number for problem in problems_of(**changes)}


def test_a_plan_that_selects_trains_no_model_and_needs_no_room_for_one() -> None:
    wide = {"kind": "mlp", "hidden": [4096] * 5}
    assert problems_of(selection=SELECTION, model=wide, training__update_norm_max=0.1) == ()


def test_p40_tuning_patients_who_are_too_few_too_many_or_without_a_model_are_refused() -> None:
    for share in (0.005, 0.7):
        only(
            "P40",
            "evaluation.tuning_fraction",
            evaluation__tuning_fraction=share,
            training__update_norm_max=1e3,
        )
    only(
        "P40",
        "evaluation.releases",
        evaluation__tuning_fraction=0.1,
        evaluation__releases=1,
    )
    assert problems_of(evaluation__tuning_fraction=0.1) == ()


def test_p41_a_plan_whose_patients_fill_the_memory_is_refused() -> None:
    binned = make_document()["features"][1] | {"time_bins": 336}
    many = [binned | {"name": f"vital_{place}"} for place in range(150)]
    plan = {"features": many, "fairness_groups": [], "monitoring": ...}
    only(
        "P41", "features", **plan, model={"kind": "gru", "width": 2}, training__update_norm_max=1e3
    )
    only("P41", "features", **plan, training__update_norm_max=1e3)


def test_p42_a_unit_that_is_none_and_one_assumed_that_does_not_convert_are_refused() -> None:
    only("P42", "features[1].unit", features__1__unit="mmHg")
    only("P42", "features[1].unit", features__1__unit_if_missing="mg/dL")
    only("P42", "label.unit", label__above=3.0, label__unit="bpm")


def test_p43_edges_that_do_not_rise_are_refused() -> None:
    only("P43", "monitoring.score_edges", monitoring__score_edges=[0.2, 0.5, 0.5, 0.8])
    only("P43", "monitoring.group_edges", monitoring__group_edges=[0.5, 0.2, 0.8])
    assert problems_of(monitoring__score_edges=[0.1, 0.2, 0.5, 0.8]) == ()


def test_p44_group_edges_and_a_threshold_beside_the_score_edges_are_refused() -> None:
    only("P44", "monitoring.group_edges", monitoring__group_edges=[0.25, 0.5])
    only("P44", "monitoring.threshold", monitoring__threshold=0.3)  # of score_edges alone
    found = problems_of(monitoring__threshold=0.35)
    assert [item.number for item in found] == ["P44", "P44"]
    assert problems_of(monitoring__threshold=0.2) == ()


def test_p45_own_edges_of_no_numeric_sentinel_twice_or_outside_the_bounds_are_refused() -> None:
    def edges(*items: object) -> dict[str, object]:
        return {
            "monitoring__sentinel_features": ["age", "sex"],
            "monitoring__sentinel_edges": list(items),
        }

    good = {"feature": "age", "edges": [40, 65]}
    assert problems_of(**edges(good)) == ()
    for name in ("sex", "systolic_bp", "nobody"):
        only("P45", "monitoring.sentinel_edges[0].feature", **edges(good | {"feature": name}))
    only("P45", "monitoring.sentinel_edges[1].feature", **edges(good, good))
    for wrong in ([65, 40], [40, 40], [20, 40], [40, 90], [40, 91]):  # the bounds are 20 and 90
        only("P45", "monitoring.sentinel_edges[0].edges", **edges(good | {"edges": wrong}))


def test_p46_reports_that_no_noise_keeps_inside_their_epsilon_are_refused() -> None:
    only("P46", "monitoring.epsilon_per_report", monitoring__epsilon_per_report=1e-5)
    # A delta or a name that other rules refuse is not asked for its noise.
    found = problems_of(monitoring__sentinel_features=["nobody"])
    assert [item.number for item in found] == ["P16"]


def test_a_plan_without_monitoring_or_groups_is_complete() -> None:
    assert problems_of(monitoring=..., fairness_groups=...) == ()


def test_rules_are_asked_of_the_well_formed_fields_of_a_broken_part() -> None:
    problems = problems_of(
        training__rounds="four",
        training__quorum=1,
        privacy__unit="row",
        privacy__delta=0.005,
        features__1__unit=7,
        features__2__levels=["a", "A"],
        evaluation=...,
        monitoring=7,
    )
    assert [(problem.number, problem.path) for problem in problems] == [
        ("P3", "evaluation"),
        ("P4", "features[1].unit"),
        ("P4", "training.rounds"),
        ("P4", "privacy.unit"),
        ("P4", "monitoring"),
        ("P10", "features[2].levels[1]"),
        ("P18", "training.quorum"),
        ("P22", "privacy.delta"),
    ]


def test_places_count_the_features_of_the_file_not_the_well_formed_ones() -> None:
    document_features = make_document()["features"]
    broken = {"kind": "numeric", "name": "broken"}
    twice = [broken, document_features[0], broken, {**document_features[0]}]
    problems = problems_of(features=twice, fairness_groups=[])
    same_name = next(problem for problem in problems if problem.number == "P6")
    assert same_name.path == "features[3].name"
    assert "features[1]" in same_name.found


def test_p13_a_feature_with_a_star_reaches_the_label() -> None:
    changed = {"label__codes": ["ICD10CM/I50.9"], "features__1__codes": ["ICD10CM/I5*"]}
    only("P13", "features[1].codes[0]", **changed)


@pytest.mark.parametrize("code", ["SNOMED/8411*", "ICD10CM/I*"])
def test_p32_a_star_where_codes_are_not_built_by_prefix(code: str) -> None:
    found = problems_of(features__1__codes=[code])
    assert ("P32", "features[1].codes[0]") in [(item.number, item.path) for item in found]


def test_p32_stars_are_allowed_in_every_list_of_codes() -> None:
    assert problems_of(features__1__codes=["ICD10CM/I50*", "ATC/C09AA*"]) == ()


def test_p34_there_is_no_numeric_feature_to_scale() -> None:
    only(
        "P34",
        "scaling",
        features=make_document()["features"][2:],
        monitoring=...,
        scaling={"kind": "dp_mean_variance"},
    )


def test_p35_scaling_is_taken_over_exactly_with_a_warm_start() -> None:
    warm = {"version": "ab" * 32}
    own, taken = {"kind": "dp_mean_variance"}, {"kind": "of_warm_start"}
    only("P35", "scaling.kind", scaling=taken)
    only("P35", "scaling.kind", scaling=own, training__warm_start=warm)
    assert problems_of(scaling=own) == ()
    assert problems_of(scaling=taken, training__warm_start=warm) == ()


def test_p23_given_noise_must_leave_room_for_the_scaling_release() -> None:
    enough = {"privacy__noise_multiplier": 2.5}
    assert problems_of(**enough, scaling={"kind": "dp_mean_variance"}) == ()
    greedy = {"kind": "dp_mean_variance", "epsilon_fraction": 0.5}
    close = plan_mechanisms(make_plan()).train_per_round.noise_multiplier
    assert problems_of(privacy__noise_multiplier=close) == ()
    only("P23", "privacy.noise_multiplier", privacy__noise_multiplier=close, scaling=greedy)


def test_p47_a_quorum_that_dishonest_sites_outvote_is_refused() -> None:
    for kind, needed in (("trimmed_mean", 5), ("median", 5), ("multi_krum", 7)):
        chosen = {"kind": kind, "dishonest_sites": 2}
        changes = {"training__aggregation": chosen, "training__quorum": needed - 1}
        only("P47", "training.quorum", **changes)
        assert problems_of(**changes | {"training__quorum": needed}) == ()
    median_norm = {"kind": "norm_bound", "norm_max": "median"}
    only("P47", "training.quorum", training__aggregation=median_norm, training__quorum=2)


def test_p48_one_selected_update_or_more_than_are_surely_honest_is_refused() -> None:
    for selected in (1, 4):
        only(
            "P48",
            "training.aggregation.selected",
            training__aggregation={
                "kind": "multi_krum",
                "dishonest_sites": 1,
                "selected": selected,
            },
            training__quorum=6,
        )
    three = {"kind": "multi_krum", "dishonest_sites": 1, "selected": 3}
    assert problems_of(training__aggregation=three, training__quorum=6) == ()


def test_p49_a_norm_bound_that_bounds_nothing_is_refused() -> None:
    bound = {"kind": "norm_bound", "norm_max": 10.0}
    only("P49", "training.aggregation.norm_max", training__aggregation=bound)
    assert problems_of(training__aggregation=bound | {"norm_max": 9.5}) == ()


def test_the_aggregation_of_a_plan_that_selects_is_not_asked_about() -> None:
    chosen = {"kind": "multi_krum", "dishonest_sites": 5, "selected": 1}
    assert problems_of(selection=SELECTION, training__aggregation=chosen) == ()
