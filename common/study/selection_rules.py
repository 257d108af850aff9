"""Plan rules about a selection among candidates. Numbers are in `rules`."""

from __future__ import annotations

from collections.abc import Iterator

from common import limits
from common.errors import AccountingError
from common.privacy.calibration import calibrate_selection
from common.privacy.patient_parts import patient_parts
from common.study.contingency import always_kept, cell_count, class_count, count_tables
from common.study.plan import StudyPlan
from common.study.problems import Problem


def rule_kept_features_are_candidates(plan: StudyPlan) -> Iterator[Problem]:
    """Every feature that is always kept is a candidate, once."""
    if plan.selection is None:
        return
    names = {feature.name for feature in plan.features}
    seen: set[str] = set()
    for place, name in enumerate(plan.selection.always_keep):
        path = f"selection.always_keep[{place}]"
        if name not in names:
            yield Problem(path, name, "the name of a feature", "correct the name or remove it")
        elif name in seen:
            yield Problem(path, f"{name} a second time", "each feature once", "remove it")
        seen.add(name)


def rule_selection_has_a_choice(plan: StudyPlan) -> Iterator[Problem]:
    """A selection keeps all that must stay and fewer features than it has candidates."""
    selection, candidates = plan.selection, len(plan.features)
    if selection is None:
        return
    fixed = len(always_kept(plan))
    if not fixed <= selection.keep < candidates:
        yield Problem(
            "selection.keep",
            str(selection.keep),
            f"from {fixed} (always kept, fairness groups, sentinels) to {candidates - 1}, fewer "
            "than the candidates",
            "choose how many features the shortened plan is to have",
        )
    if selection.joint_candidates > candidates:
        yield Problem(
            "selection.joint_candidates",
            str(selection.joint_candidates),
            f"at most the {candidates} features",
            "lower it; a pair more is noise more in every other",
        )


def rule_selection_tables_are_small(plan: StudyPlan) -> Iterator[Problem]:
    """The tables of a selection have few enough classes and cells to be counted with noise."""
    selection = plan.selection
    if selection is None:
        return
    for place, feature in enumerate(plan.features):
        classes = class_count(feature, selection)
        if classes > limits.CLASSES_MAX:
            yield Problem(
                f"features[{place}].levels",
                f"{classes} classes",
                f"at most {limits.CLASSES_MAX} in a selection, the missing values among them",
                "join rare levels, or leave the feature out and add it to the shortened plan",
            )
    most = min(selection.joint_candidates, len(plan.features))
    widest = sorted(
        range(len(plan.features)),
        key=lambda place: -class_count(plan.features[place], selection),
    )[:most]
    for what, tables in (
        ("single candidates", count_tables(plan)),
        (f"pairs among {most} candidates", count_tables(plan, sorted(widest))),
    ):
        if cell_count(tables) > limits.COUNTED_CELLS_MAX:
            yield Problem(
                "selection.joint_candidates" if len(tables[0].candidates) > 1 else "features",
                f"up to {cell_count(tables)} cells for {what}",
                f"at most {limits.COUNTED_CELLS_MAX} cells",
                "lower joint_candidates or bins, or join levels",
            )


def rule_selection_noise_can_be_calibrated(plan: StudyPlan) -> Iterator[Problem]:
    """Some noise keeps both rounds of a selection inside epsilon and delta."""
    if plan.selection is None:
        return
    try:
        calibrate_selection(
            epsilon=plan.privacy.epsilon,
            delta=plan.privacy.delta,
            candidates=len(plan.features),
            joint_candidates=plan.selection.joint_candidates,
            part=patient_parts(plan.evaluation).training,
        )
    except AccountingError as error:
        yield Problem("selection", error.arrived, error.expected, error.todo)
