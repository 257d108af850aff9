"""The numbered rules that turn tests into states, and states into reasons.

State of a signal; the first rule that holds:
 (1) INSUFFICIENT: nothing was compared in the site's last report.
 (2) ALERT: the sequential level is at its alarm and the change is beyond the plan's tolerance.
 (3) ALERT: so is the last quarter against the reference, and its p-value is small enough.
 (4) WATCH: the level is at its alarm, or the p-value stands among all of its round.
 (5) OK.
State of a site:
 (6) its worst: ALERT, then SILENT (a report is owed), WATCH, INSUFFICIENT (of all), OK.
Reasons: certain from signals in ALERT; not certain where those in WATCH are counted as well.
 (7) DATA: missing values changed; or at most a quarter of the sentinels moved, one of them at no
     more than half of the other sites.
 (8) COVARIATE: inputs changed otherwise than by (7), or the scores moved, while neither AUROC nor
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
        share_elsewhere: of the other sites, where each is raised too; for all sites together empty.
    """
    if _of(raised, Metric.MISSING):
        return True
    moved = _of(raised, Metric.SENTINEL)
    if len(moved) > max(1.0, SENTINEL_SHARE_OF_DATA_MAX * sentinels):
        return False
    return any(share_elsewhere.get(watch, 0.0) <= 0.5 for watch in moved)


def is_covariate(raised: Set[Watch], *, sentinels: int, is_of_data: bool) -> bool:
    """Rule (8).

    Args:
        is_of_data: whether rule (7) holds.
    """
    metrics = {watch.metric for watch in raised}
    if metrics & (_DISCRIMINATION | _CALIBRATION):
        return False
    if Metric.SCORES in metrics or len(_of(raised, Metric.SENTINEL)) > max(
        1.0, SENTINEL_SHARE_OF_DATA_MAX * sentinels
    ):
        return True
    return bool(metrics & _INPUTS) and not is_of_data


def is_prior(raised: Set[Watch]) -> bool:
    """Rule (9)."""
    metrics = {watch.metric for watch in raised}
    if metrics & _DISCRIMINATION:
        return False
    alone = Metric.PREVALENCE in metrics and Metric.SCORES not in metrics
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
