"""The table of all numbered plan rules; `docs/study-plan.md` says each in a steward's words.

P1 to P5 and P33 are found while the file is read (`plan_draft`, `catalogue`); the others are one
pure function each, in `feature_rules`, `cohort_rules`, `training_rules`, `aggregation_rules`,
`selection_rules` and `monitoring_rules`. A number is never given to another rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from common.study import aggregation_rules as of_aggregation
from common.study import cohort_rules as of_cohort
from common.study import feature_rules as of_features
from common.study import monitoring_rules as of_monitoring
from common.study import scaling_rules as of_scaling
from common.study import selection_rules as of_selection
from common.study import training_rules as of_training
from common.study import unit_rules as of_units
from common.study.plan import StudyPlan
from common.study.problems import Problem

EACH_FEATURE: Final = "each feature"
"""A need that is met by the features which are well formed, whatever the others are."""


@dataclass(frozen=True)
class Rule:
    """One numbered rule.

    Args:
        number: "P1" and so on.
        says: the rule as a sentence.
        needs: the plan's parts, or fields of parts, that must be well formed before the rule can be
            asked; with `EACH_FEATURE` it is asked of those features that are.
        check: yields problems without their number; None for what reading the file finds.
    """

    number: str
    says: str
    needs: tuple[str, ...] = ()
    check: Callable[[StudyPlan], Iterable[Problem]] | None = None


_NOISE: Final = (
    "training.rounds",
    "training.local_steps",
    "training.sampling_probability",
    "evaluation.held_out_fraction",
    "evaluation.releases",
    "privacy.epsilon",
    "privacy.delta",
    "privacy.noise_multiplier",
    "scaling",
)

RULES: Final = (
    Rule("P1", "The file is UTF-8 text in TOML 1.0, at most 1 MiB."),
    Rule("P2", "Every key is one that a plan has."),
    Rule("P3", "Every key that a plan must have is there."),
    Rule("P4", "Every value has its type, its form and its range."),
    Rule("P5", "Texts are not blank and hold only visible characters."),
    Rule(
        "P6",
        "No two features share a name.",
        (EACH_FEATURE,),
        of_features.rule_feature_names_are_unique,
    ),
    Rule(
        "P7",
        "No two features make a column of one name.",
        (EACH_FEATURE,),
        of_features.rule_columns_are_unique,
    ),
    Rule(
        "P8",
        "A plausible range has its lower bound below its upper bound.",
        (EACH_FEATURE,),
        of_features.rule_plausible_range_is_ordered,
    ),
    Rule(
        "P9",
        "Clip bounds are ordered and lie inside the plausible range.",
        (EACH_FEATURE,),
        of_features.rule_clip_lies_in_plausible_range,
    ),
    Rule(
        "P10",
        "Levels differ in more than case and surrounding space.",
        (EACH_FEATURE,),
        of_features.rule_levels_are_distinct,
    ),
    Rule(
        "P11",
        "LOINC and SNOMED codes have their right check digit; no code is listed twice.",
        (EACH_FEATURE, "label.codes"),
        of_features.rule_codes_are_well_typed,
    ),
    Rule(
        "P12",
        "The label is not among the features.",
        (EACH_FEATURE, "label.name"),
        of_features.rule_label_name_is_no_feature,
    ),
    Rule(
        "P13",
        "No feature is read from the codes that define the label.",
        (EACH_FEATURE, "label.codes"),
        of_features.rule_label_codes_are_no_feature_codes,
    ),
    Rule(
        "P14",
        "The cohort's lowest age is not above its highest.",
        ("cohort.age_years_min", "cohort.age_years_max"),
        of_training.rule_ages_are_ordered,
    ),
    Rule(
        "P15",
        "Every fairness group names a categorical feature, once.",
        ("features", "fairness_groups"),
        of_features.rule_groups_are_categorical_features,
    ),
    Rule(
        "P16",
        "Every sentinel feature is a feature, once.",
        ("features", "monitoring.sentinel_features"),
        of_features.rule_sentinels_are_features,
    ),
    Rule(
        "P17",
        "The model's parameters fit one message of 200 MiB.",
        ("features", "model"),
        of_training.rule_model_fits_a_message,
    ),
    Rule(
        "P18",
        "A round is made of two sites or more.",
        ("training.quorum",),
        of_training.rule_quorum_hides_each_site,
    ),
    Rule(
        "P19",
        "There are not more evaluations than rounds.",
        ("training.rounds", "evaluation.releases"),
        of_training.rule_releases_fit_the_rounds,
    ),
    Rule(
        "P20",
        "At least 1 % of the patients are held out.",
        ("evaluation.held_out_fraction",),
        of_training.rule_both_parts_have_patients,
    ),
    Rule(
        "P21",
        "All steps of the study together are at most 1,000,000.",
        ("training.rounds", "training.local_steps"),
        of_training.rule_steps_can_be_accounted,
    ),
    Rule(
        "P22",
        "Delta is from 1e-9 to 1e-3.",
        ("privacy.delta",),
        of_training.rule_delta_is_small,
    ),
    Rule(
        "P23",
        "The training noise keeps all rounds inside epsilon and delta.",
        _NOISE,
        of_training.rule_training_noise_meets_epsilon,
    ),
    Rule(
        "P24",
        "Some noise keeps all evaluations inside epsilon and delta.",
        _NOISE,
        of_training.rule_evaluation_noise_can_be_calibrated,
    ),
    Rule(
        "P25",
        "An honest update of a small site passes the norm bound.",
        ("features", "model", "training", "privacy.clipping_norm", *_NOISE),
        of_training.rule_update_norm_is_achievable,
    ),
    Rule(
        "P26",
        "One monitoring report spends no more than the whole study.",
        ("monitoring.epsilon_per_report", "privacy.epsilon"),
        of_training.rule_report_costs_no_more_than_study,
    ),
    Rule(
        "P27",
        "A criterion's window begins before it ends.",
        ("cohort",),
        of_cohort.rule_criteria_windows_are_ordered,
    ),
    Rule(
        "P28",
        "A bound on the label's value has a unit, and the bounds leave room between them.",
        ("label",),
        of_cohort.rule_label_bound_has_a_unit,
    ),
    Rule(
        "P29",
        "A count has the unit 1, and a time since an event the unit d.",
        (EACH_FEATURE,),
        of_cohort.rule_counting_aggregates_have_their_unit,
    ),
    Rule(
        "P30",
        "Values in time bins have an indicator, and age is not binned.",
        (EACH_FEATURE,),
        of_cohort.rule_time_bins_have_an_indicator,
    ),
    Rule(
        "P31",
        "A recurrent model has features in time bins, all of one window and number of bins.",
        ("features", "model"),
        of_cohort.rule_recurrent_models_have_one_time_line,
    ),
    Rule(
        "P32",
        "A code ends in a star only where codes are built by prefix: ATC and the ICD.",
        (EACH_FEATURE, "label.codes"),
        of_features.rule_stars_stand_for_prefixes,
    ),
    Rule("P33", "What is taken from the feature catalogue is there, and changed only as allowed."),
    Rule(
        "P34",
        "Scaling has a numeric feature.",
        ("features", "scaling"),
        of_scaling.rule_scaling_has_a_numeric_feature,
    ),
    Rule(
        "P35",
        "Scaling is taken over from a version exactly when round 1 starts from one.",
        ("training.warm_start", "scaling"),
        of_scaling.rule_scaling_goes_with_its_model,
    ),
    Rule(
        "P36",
        "Every feature that a selection always keeps is a feature, once.",
        ("features", "selection.always_keep"),
        of_selection.rule_kept_features_are_candidates,
    ),
    Rule(
        "P37",
        "A selection keeps all that must stay and fewer features than it has candidates.",
        ("features", "fairness_groups", "monitoring", "selection"),
        of_selection.rule_selection_has_a_choice,
    ),
    Rule(
        "P38",
        "A candidate has at most 21 classes, and a count at most 250,000 cells.",
        ("features", "selection"),
        of_selection.rule_selection_tables_are_small,
    ),
    Rule(
        "P39",
        "Some noise keeps both counts of a selection inside epsilon and delta.",
        ("features", "selection", *_NOISE),
        of_selection.rule_selection_noise_can_be_calibrated,
    ),
    Rule(
        "P40",
        "Tuning patients are at least 1 %, leave a tenth to train, and have a model to score.",
        ("evaluation",),
        of_training.rule_tuning_is_of_use,
    ),
    Rule(
        "P41",
        "A patient has at most 100,000 numbers: columns times rows_per_patient_max.",
        ("features", "model", "privacy.rows_per_patient_max"),
        of_training.rule_patients_fit_into_memory,
    ),
    Rule(
        "P42",
        "Every unit is a UCUM code that sites can convert to.",
        (EACH_FEATURE, "label"),
        of_units.rule_units_are_ucum,
    ),
    Rule(
        "P43",
        "Score edges and group edges rise strictly.",
        ("monitoring.score_edges", "monitoring.group_edges"),
        of_monitoring.rule_edges_rise,
    ),
    Rule(
        "P44",
        "Every group edge is a score edge, and the threshold is an edge of both.",
        ("monitoring.score_edges", "monitoring.group_edges", "monitoring.threshold"),
        of_monitoring.rule_group_edges_are_score_edges,
    ),
    Rule(
        "P45",
        "Own edges are of a numeric sentinel, once, and rise inside its clip bounds.",
        ("features", "monitoring.sentinel_features", "monitoring.sentinel_edges"),
        of_monitoring.rule_sentinel_edges_fit,
    ),
    Rule(
        "P46",
        "Some noise keeps both reports of a period inside epsilon_per_report and delta.",
        ("features", "fairness_groups", "monitoring", "privacy.delta"),
        of_monitoring.rule_report_noise_can_be_calibrated,
    ),
    Rule(
        "P47",
        "The quorum is large enough for the dishonest sites that the aggregation tolerates.",
        ("training.aggregation", "training.quorum", "selection"),
        of_aggregation.rule_quorum_outvotes_dishonest_sites,
    ),
    Rule(
        "P48",
        "Multi-Krum selects two updates or more, and at most the quorum less f and two.",
        ("training.aggregation", "training.quorum", "selection"),
        of_aggregation.rule_several_updates_are_selected,
    ),
    Rule(
        "P49",
        "A public norm bound is below update_norm_max.",
        ("training.aggregation", "training.update_norm_max"),
        of_aggregation.rule_norm_bound_bounds,
    ),
)

_STOPS: Final[dict[str, tuple[str, ...]]] = {
    # Accounting is not asked what its own bounds have already refused.
    "P23": ("P21", "P22"),
    "P24": ("P22",),
    "P25": ("P20", "P21", "P22", "P23", "P24", "P17"),
    "P39": ("P20", "P22", "P37"),
    "P46": ("P15", "P16", "P22"),
    "P48": ("P47",),
}


def check_rules(plan: StudyPlan, *, complete: frozenset[str] | None = None) -> list[Problem]:
    """Return every problem of a plan, in the table's order.

    Args:
        plan: the plan; parts that are not named in `complete` may be absent.
        complete: the needs that are met; all of them when not given.
    """
    problems: list[Problem] = []
    broken: set[str] = set()
    for rule in RULES:
        is_met = complete is None or complete.issuperset(rule.needs)
        if rule.check is None or not is_met or broken.intersection(_STOPS.get(rule.number, ())):
            continue
        found = [dataclasses.replace(item, number=rule.number) for item in rule.check(plan)]
        if found:
            broken.add(rule.number)
        problems.extend(found)
    return problems
