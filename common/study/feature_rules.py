"""Plan rules about variables: features, label, groups and sentinels. Numbers are in `rules`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Final

from common.study.code_digits import is_mistyped
from common.study.code_lists import code_lists
from common.study.code_prefix import PREFIX_SYSTEMS, CodeSet, is_misused_star
from common.study.cohort_rules import UNIT_OF_AGGREGATE
from common.study.columns import columns_of_feature
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.study.problems import Problem, shorten

_OTHER_SCALE: Final = frozenset({*UNIT_OF_AGGREGATE, "slope"})


def rule_feature_names_are_unique(plan: StudyPlan) -> Iterator[Problem]:
    """No two features share a name."""
    first: dict[str, int] = {}
    for place, feature in enumerate(plan.features):
        if feature.name in first:
            yield Problem(
                f"features[{place}].name",
                f"{feature.name}, the name of features[{first[feature.name]}]",
                "a name that no other feature has",
                "rename or remove one of the two",
            )
        first.setdefault(feature.name, place)


def rule_columns_are_unique(plan: StudyPlan) -> Iterator[Problem]:
    """No two features make a matrix column of one name."""
    first: dict[str, tuple[int, str]] = {}
    for place, feature in enumerate(plan.features):
        for column in columns_of_feature(feature):
            maker, maker_name = first.setdefault(column, (place, feature.name))
            if maker != place and maker_name != feature.name:
                yield Problem(
                    f"features[{place}].name",
                    f"{feature.name}, whose column {shorten(column)} features[{maker}] makes too",
                    "a name that is not another feature's name with __missing",
                    "rename one of the two",
                )


def rule_plausible_range_is_ordered(plan: StudyPlan) -> Iterator[Problem]:
    """A plausible range has a lower and an upper bound."""
    for place, feature in enumerate(plan.features):
        if isinstance(feature, NumericFeature):
            low, high = feature.plausible_range
            if not low < high:
                yield Problem(
                    f"features[{place}].plausible_range",
                    f"[{low}, {high}]",
                    "[lower, upper] with lower below upper",
                    "correct the two bounds",
                )


def rule_clip_lies_in_plausible_range(plan: StudyPlan) -> Iterator[Problem]:
    """Clip bounds are ordered and inside the plausible range."""
    for place, feature in enumerate(plan.features):
        if not isinstance(feature, NumericFeature):
            continue
        low, high = feature.plausible_range
        if feature.aggregate in _OTHER_SCALE:  # the range is of values, the clip of their number
            low, high = -math.inf, math.inf
        lower, upper = feature.clip
        if not low <= lower < upper <= high:
            yield Problem(
                f"features[{place}].clip",
                f"[{lower}, {upper}]",
                f"[lower, upper] with lower below upper, inside plausible_range [{low}, {high}]",
                "choose public bounds, from a textbook and never from patients' data",
            )


def rule_levels_are_distinct(plan: StudyPlan) -> Iterator[Problem]:
    """Levels differ in more than case and surrounding space."""
    for place, feature in enumerate(plan.features):
        if not isinstance(feature, CategoricalFeature):
            continue
        first: dict[str, int] = {}
        for level_place, level in enumerate(feature.levels):
            plain = level.strip().casefold()
            if plain in first or level != level.strip():
                yield Problem(
                    f"features[{place}].levels[{level_place}]",
                    shorten(level),
                    "a level without surrounding space, other than every level before it",
                    "remove or rename it",
                )
            first.setdefault(plain, level_place)


def rule_codes_are_well_typed(plan: StudyPlan) -> Iterator[Problem]:
    """No code is listed twice in one place or has a wrong check digit."""
    for path, codes in code_lists(plan):
        counts = Counter(codes)
        for code_place, code in enumerate(codes):
            if is_mistyped(code):
                yield Problem(
                    f"{path}.codes[{code_place}]",
                    shorten(code),
                    "a code whose check digit is right",
                    "look the code up again: a digit is wrong or two are exchanged",
                )
            if counts[code] > 1 and codes.index(code) != code_place:
                yield Problem(
                    f"{path}.codes[{code_place}]",
                    f"{shorten(code)}, listed before",
                    "each code once",
                    "remove it",
                )


def rule_stars_stand_for_prefixes(plan: StudyPlan) -> Iterator[Problem]:
    """A code ends in a star only where its beginning is its place in the classification."""
    for path, codes in code_lists(plan):
        for code_place, code in enumerate(codes):
            if is_misused_star(code):
                yield Problem(
                    f"{path}.codes[{code_place}]",
                    shorten(code),
                    f"a star only at the end of a code of {', '.join(PREFIX_SYSTEMS)}, "
                    "after two characters or more (ATC: three)",
                    "list the codes one by one, or remove the star",
                )


def rule_label_name_is_no_feature(plan: StudyPlan) -> Iterator[Problem]:
    """The label is not among the features."""
    for place, feature in enumerate(plan.features):
        if feature.name == plan.label.name:
            yield Problem(
                f"features[{place}].name",
                f"{feature.name}, the label",
                "a feature that is not the outcome",
                "remove the feature, or rename it if it is another quantity",
            )


def rule_label_codes_are_no_feature_codes(plan: StudyPlan) -> Iterator[Problem]:
    """No feature is read from the codes that define the label."""
    outcome = CodeSet(plan.label.codes)
    for place, feature in enumerate(plan.features):
        for code_place, code in enumerate(feature.codes):
            if outcome.meets(code):
                yield Problem(
                    f"features[{place}].codes[{code_place}]",
                    f"{shorten(code)}, a code of the label",
                    "codes that do not define the outcome",
                    "remove the code: the model would read the answer (leakage)",
                )


def rule_groups_are_categorical_features(plan: StudyPlan) -> Iterator[Problem]:
    """Every fairness group names a categorical feature, once."""
    names = {item.name for item in plan.features if isinstance(item, CategoricalFeature)}
    known = ", ".join(sorted(names)) or "none: this plan has no categorical feature"
    seen: set[str] = set()
    for place, group in enumerate(plan.fairness_groups):
        if group.feature not in names or group.feature in seen:
            yield Problem(
                f"fairness_groups[{place}].feature",
                group.feature + (", named before" if group.feature in seen else ""),
                f"a categorical feature, once: {shorten(known)}",
                "name a categorical feature of this plan or remove the group",
            )
        seen.add(group.feature)


def rule_sentinels_are_features(plan: StudyPlan) -> Iterator[Problem]:
    """Every sentinel feature is a feature, once."""
    if plan.monitoring is None:
        return
    names = {feature.name for feature in plan.features}
    seen: set[str] = set()
    for place, name in enumerate(plan.monitoring.sentinel_features):
        if name not in names or name in seen:
            yield Problem(
                f"monitoring.sentinel_features[{place}]",
                name + (", named before" if name in seen else ""),
                "the name of a feature of this plan, once",
                "correct the name or remove it",
            )
        seen.add(name)
