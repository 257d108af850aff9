"""Signals and reasons in plain words, and what a reader may conclude from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.clock import utc_text
from common.study.plan import CategoricalFeature, StudyPlan
from server.monitor_board.signal_types import (
    Finding,
    Metric,
    MissingReport,
    Reason,
    State,
    Watch,
)

_NAMES: Final = {
    Metric.SENTINEL: "the distribution of {subject}",
    Metric.MISSING: "the share of patients without {subject}",
    Metric.SCORES: "the distribution of the model's scores",
    Metric.PREVALENCE: "the share of patients with the outcome",
    Metric.AUROC: "AUROC",
    Metric.CALIBRATION_SLOPE: "the calibration slope",
    Metric.CALIBRATION_INTERCEPT: "the calibration intercept",
    Metric.SENSITIVITY_GAP: "the gap in sensitivity of {subject}",
    Metric.FALSE_POSITIVE_GAP: "the gap in false positive rate of {subject}",
    Metric.PREDICTIVE_VALUE_GAP: "the gap in positive predictive value of {subject}",
    Metric.EXCESS_RISK_GAP: "the gap in calibration of {subject}",
}
_STATES: Final = {
    State.OK: "shows no change that chance and noise do not explain.",
    State.WATCH: "may have changed; the evidence or the size is not enough for an alert.",
    State.ALERT: "has changed beyond what the plan tolerates.",
    State.INSUFFICIENT: "cannot be judged: too few patients for the noise, or no past.",
    State.SILENT: "is not reported.",
}
_BY_LOOK: Final = "differs over the last quarter from the reference beyond what the plan tolerates."
_MEANINGS: Final[dict[Reason, tuple[str, str, str]]] = {
    Reason.DATA: (
        "A few inputs have changed by themselves, or are missing more or less often",
        "Look first at how these inputs are recorded and mapped: unit, code, device, export.",
        "Not that the patients are different, nor that the model is wrong.",
    ),
    Reason.COVARIATE: (
        "The patients differ from before, and there is no sign that the model fits them less",
        "The case mix has moved; watch whether calibration and AUROC follow.",
        "Not that predictions are worse. Outcomes of these patients may not be known yet.",
    ),
    Reason.PRIOR: (
        "The outcome has become more or less frequent at a given score",
        "Predicted risks are too high or too low throughout; a new intercept may be enough.",
        "Not that the model ranks patients worse, nor why the outcome's frequency changed.",
    ),
    Reason.CONCEPT: (
        "The model tells patients with and without the outcome apart less well, or its risks are "
        "too extreme or not extreme enough",
        "The relation of inputs and outcome may have changed; consider retraining or rolling back.",
        "Not which input is to blame. Where data is a reason too, mend the data first: a wrong "
        "unit looks the same.",
    ),
    Reason.FAIRNESS: (
        "A group's rate differs from all other patients' by more than the plan tolerates",
        "The difference is larger than chance and noise; review thresholds before wider use.",
        "Not why, nor that the model causes it: unlike risk alone makes unlike rates.",
    ),
    Reason.SILENT: (
        "A report is overdue",
        "Ask the site whether its agent runs and its courier reaches the relay.",
        "Nothing about the patients or the model: no report is not a good report.",
    ),
}


def name_of(watch: Watch, plan: StudyPlan) -> str:
    """Return a signal's name in words."""
    return _NAMES[watch.metric].format(subject=_subject(watch, plan))


def words_of_signal(name: str, state: State, *, is_by_look: bool) -> str:
    """Return one sentence about a signal.

    Args:
        is_by_look: whether an alert comes from the last quarter as a whole.
    """
    said = _BY_LOOK if is_by_look else _STATES[state]
    return f"{name[0].upper()}{name[1:]} {said}"


def finding_of(reason: Reason, names: Sequence[str], *, is_certain: bool) -> Finding:
    """Return a reason with the names of the signals that speak for it."""
    sentence, may, may_not = _MEANINGS[reason]
    listed = f": {', '.join(names)}" if names else ""
    certainty = "" if is_certain else " Not certain yet."
    return Finding(reason, is_certain, f"{sentence}{listed}.{certainty}", may, may_not)


def missing_names(missing: Sequence[MissingReport]) -> list[str]:
    """Return overdue reports in words."""
    return [missing_name(report) for report in missing]


def missing_name(report: MissingReport) -> str:
    """Return an overdue report in words, with the day since which it is late (UTC)."""
    day = utc_text(report.late_since_s)[:10]
    return f"{report.kind.value} of {report.period}, late since {day}"


def _subject(watch: Watch, plan: StudyPlan) -> str:
    if watch.level is None:
        return watch.subject
    feature = next(item for item in plan.features if item.name == watch.subject)
    levels = feature.levels if isinstance(feature, CategoricalFeature) else ()
    level = levels[watch.level] if watch.level < len(levels) else "missing"
    return f"{watch.subject} {level}"
