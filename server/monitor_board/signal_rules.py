"""The numbered rules that turn tests into states, and states into reasons.

State of a signal; the first rule that holds:
 (1) INSUFFICIENT: nothing was compared in the site's last report.
 (2) ALERT: the sequential level is at its alarm and the change is beyond the plan's tolerance.
 (3) ALERT: so is the last quarter against the reference, and its p-value is small enough.
 (4) WATCH: the level is at its alarm, or the p-value stands among all of its round.
 (5) OK.
State of a site:
 (6) its worst: ALERT, then SILENT (a report is owed), WATCH, INSUFFICIENT (of all), OK.
Reasons, from signals in ALERT (certain); without any, in ALERT or WATCH (not certain). That
something has *not* changed is said only where it is not even in WATCH:
 (7) DATA: missing values changed, or some but at most a quarter of the sentinels moved, and at no
     more than half of the other sites.
 (8) COVARIATE: more sentinels than that moved, or the scores did, while neither AUROC nor
     calibration changed.
 (9) PRIOR: the calibration intercept changed, or prevalence without the scores, while neither AUROC
     nor the calibration slope did.
(10) CONCEPT: AUROC fell, or the calibration slope changed.
(11) FAIRNESS: a gap's 95 % interval excludes what is tolerated.
(12) SILENT: a report is owed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Final

from server.monitor_board.plan_watches import GAPS
from server.monitor_board.signal_types import Metric, QuarterlyLook, Reason, State, Watch

SENTINEL_SHARE_OF_DATA_MAX: Final = 0.25
_DISCRIMINATION: Final = {Metric.AUROC, Metric.CALIBRATION_SLOPE}
_CALIBRATION: Final = {Metric.CALIBRATION_SLOPE, Metric.CALIBRATION_INTERCEPT}
_INPUTS: Final = {Metric.SENTINEL, Metric.MISSING}
_WORST_FIRST: Final = (State.ALERT, State.SILENT, State.WATCH)


def state_of_signal(
    *,
    is_compared: bool,
    is_at_alarm: bool,
    is_beyond: bool,
    is_found: bool,
    look: QuarterlyLook | None,
) -> State:
    """Return the state by rules (1) to (5)."""
    if not is_compared:
        return State.INSUFFICIENT
    if is_at_alarm and is_beyond:
        return State.ALERT
    if look is not None and look.is_beyond and look.p_value <= look.p_value_max:
        return State.ALERT
    if is_at_alarm or is_found:
        return State.WATCH
    return State.OK


def state_of_site(states: Collection[State], *, is_silent: bool) -> State:
    """Return the state by rule (6)."""
    present = set(states) | ({State.SILENT} if is_silent else set())
    for state in _WORST_FIRST:
        if state in present:
            return state
    return State.INSUFFICIENT if present <= {State.INSUFFICIENT} else State.OK


def is_data(raised: Set[Watch], *, sentinels: int, share_elsewhere: Mapping[Watch, float]) -> bool:
    """Rule (7).

    Args:
        raised: at this site.
        share_elsewhere: of the other sites, where each is raised too.
    """
    own = {watch for watch in raised if share_elsewhere.get(watch, 0.0) <= 0.5}
    moved = _of(raised, Metric.SENTINEL)
    few = len(moved) <= max(1.0, SENTINEL_SHARE_OF_DATA_MAX * sentinels)
    return bool(_of(own, Metric.MISSING)) or (few and bool(moved & own))


def is_covariate(raised: Set[Watch], *, sentinels: int, doubtful: Set[Watch]) -> bool:
    """Rule (8).

    Args:
        doubtful: in ALERT or WATCH; "the model still fits" is not said while one of them doubts it.
    """
    metrics = {watch.metric for watch in raised}
    if {watch.metric for watch in doubtful} & (_DISCRIMINATION | _CALIBRATION):
        return False
    moved = len(_of(raised, Metric.SENTINEL))
    return moved > max(1.0, SENTINEL_SHARE_OF_DATA_MAX * sentinels) or Metric.SCORES in metrics


def is_prior(raised: Set[Watch], *, doubtful: Set[Watch]) -> bool:
    """Rule (9).

    Args:
        doubtful: in ALERT or WATCH.
    """
    metrics = {watch.metric for watch in raised}
    others = {watch.metric for watch in doubtful}
    if others & _DISCRIMINATION:
        return False
    alone = Metric.PREVALENCE in metrics and Metric.SCORES not in others
    return Metric.CALIBRATION_INTERCEPT in metrics or alone


def is_concept(raised: Set[Watch]) -> bool:
    """Rule (10)."""
    return bool({watch.metric for watch in raised} & _DISCRIMINATION)


def is_fairness(excluding: Set[Watch]) -> bool:
    """Rule (11).

    Args:
        excluding: the raised gaps whose interval excludes what is tolerated.
    """
    return any(watch.metric in GAPS for watch in excluding)


def signals_of_reason(reason: Reason, raised: Set[Watch]) -> frozenset[Watch]:
    """Return which raised signals speak for a reason."""
    metrics = {
        Reason.DATA: _INPUTS,
        Reason.COVARIATE: _INPUTS | {Metric.SCORES},
        Reason.PRIOR: {Metric.PREVALENCE, Metric.CALIBRATION_INTERCEPT},
        Reason.CONCEPT: _DISCRIMINATION,
        Reason.FAIRNESS: set(GAPS),
        Reason.SILENT: set(),
    }[reason]
    return frozenset(watch for watch in raised if watch.metric in metrics)


def _of(raised: Set[Watch], metric: Metric) -> set[Watch]:
    return {watch for watch in raised if watch.metric is metric}
