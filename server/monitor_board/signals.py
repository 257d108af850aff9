"""Kept reports to signals: what changed where, how surely, and why as far as counts can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.false_discovery import benjamini_hochberg
from common.ids import SiteId, StudyId
from common.study.plan import StudyPlan
from common.study.report_periods import periods_over, report_late_s
from common.study.report_tensors import ReportKind
from server.monitor_board.alarm_levels import AlarmLevels, alarm_levels
from server.monitor_board.courses import Course, build_courses
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.report_panel import ReportPanel, build_panel
from server.monitor_board.signal_rules import state_of_signal
from server.monitor_board.signal_types import (
    MissingReport,
    QuarterlyLook,
    Signal,
    SiteSignals,
    State,
    TrailPoint,
    Watch,
)
from server.monitor_board.signal_words import name_of, words_of_signal
from server.monitor_board.site_findings import Raised, site_signals
from server.monitor_board.statistics.noisy_shares import Floats

FALSE_SHARE_MAX: Final = 0.05
"""Of the findings of one round, the share that may be false; they make a WATCH."""
_KINDS: Final = (ReportKind.CASE_MIX, ReportKind.OUTCOME)


@dataclass(frozen=True)
class BoardSignals:
    """Everything a page shows; the same reports always give the same.

    Args:
        pooled: all sites together; None where reports are sums already, or with one site.
        courses: of each test, over all periods; see `trail_of`.
        site_ids: the columns of the courses; all sites together come after them.
    """

    study_id: StudyId
    sites: tuple[SiteSignals, ...]
    pooled: SiteSignals | None
    levels: AlarmLevels
    courses: tuple[Course, ...]
    site_ids: tuple[SiteId, ...]


def assess(
    plan: StudyPlan,
    reports: Sequence[KeptReport],
    *,
    now_s: int,
    expected: Mapping[SiteId, int],
) -> BoardSignals:
    """Return the signals of every site that reported or should have, and of all together.

    Args:
        expected: sites that owe reports, and the moment (Unix time) from which they monitor.
    """
    panel = build_panel(reports)
    courses, levels = build_courses(plan, panel), alarm_levels(plan)
    columns = [_latest(course, panel, place) for course in courses for place in _columns(panel)]
    found = _found_in_round(columns)
    signals = [
        _signal(plan, panel, latest, levels, is_found=is_found)
        for latest, is_found in zip(columns, found, strict=True)
    ]
    # Courses come one after the other, each with all columns in order.
    of_site = {place: signals[place :: len(_columns(panel))] for place in _columns(panel)}
    overdue = overdue_reports(plan, panel, now_s=now_s, expected=expected)
    raised = Raised({panel.sites[place]: of_site[place] for place in range(len(panel.sites))})
    sites = tuple(
        site_signals(
            site,
            raised.signals.get(site, ()),
            tuple(item for item in overdue if item.site_id == site),
            raised=raised,
        )
        for site in sorted({*panel.sites, *expected})
    )
    is_pooled = len(panel.sites) > 1 and plan.monitoring is not None
    together = tuple(of_site[len(panel.sites)])
    return BoardSignals(
        study_id=StudyId(plan.study.id),
        sites=sites,
        pooled=site_signals(None, together, (), raised=raised) if is_pooled else None,
        levels=levels,
        courses=courses,
        site_ids=panel.sites,
    )


def trail_of(board: BoardSignals, site_id: SiteId | None, watch: Watch) -> tuple[TrailPoint, ...]:
    """Return one signal's values in all periods, oldest first; `site_id` None for all sites."""
    place = len(board.site_ids) if site_id is None else board.site_ids.index(site_id)
    course = next(course for course in board.courses if course.watch == watch)
    return tuple(
        TrailPoint(
            period,
            _number(found.estimate, place),
            _number(found.low, place),
            _number(found.high, place),
            _number(found.change, place),
            _number(found.p_value, place),
            float(level[place]),
        )
        for period, found, level in zip(
            course.periods, course.track.comparisons, course.track.levels, strict=True
        )
    )


def overdue_reports(
    plan: StudyPlan, panel: ReportPanel, *, now_s: int, expected: Mapping[SiteId, int]
) -> tuple[MissingReport, ...]:
    """Return the reports that are not there although the board no longer waits for them."""
    monitoring = plan.monitoring
    if monitoring is None:
        return ()
    found = []
    for site, from_s in sorted(expected.items()):
        periods = list(periods_over(monitoring.every, from_s=from_s, now_s=now_s))
        for period in periods[: monitoring.periods_max]:
            for kind in _KINDS:
                late_s = report_late_s(plan, kind, period)
                # The period in which a site began was not whole.
                is_owed = period.begin_s >= from_s and late_s < now_s
                if is_owed and (site, kind, period.label) not in panel.reports:
                    found.append(MissingReport(site, kind, period.label, late_s))
    return tuple(found)


@dataclass(frozen=True)
class _Latest:
    """One course's last report of one column."""

    course: Course
    place: int
    is_pooled: bool
    at: int | None

    @property
    def p_value(self) -> float:
        if self.at is None:
            return math.nan
        return float(self.course.track.comparisons[self.at].p_value[self.place])


def _columns(panel: ReportPanel) -> range:
    return range(len(panel.sites) + 1)


def _latest(course: Course, panel: ReportPanel, place: int) -> _Latest:
    is_pooled = place == len(panel.sites)
    at: int | None = None
    for number in range(len(course.periods) - 1, -1, -1):
        key = course.watch.kind, course.periods[number]
        if is_pooled or (panel.sites[place], *key) in panel.reports:
            at = number
            break
    return _Latest(course, place, is_pooled, at)


def _found_in_round(columns: Sequence[_Latest]) -> list[bool]:
    """Return which p-values stand among those of the same round; all sites together by itself."""
    rounds: dict[tuple[ReportKind, str, bool], list[int]] = {}
    for number, latest in enumerate(columns):
        if latest.at is not None:
            key = latest.course.watch.kind, latest.course.periods[latest.at], latest.is_pooled
            rounds.setdefault(key, []).append(number)
    found = [False] * len(columns)
    for members in rounds.values():
        p_values = np.array([columns[number].p_value for number in members])
        stands = benjamini_hochberg(p_values, false_share_max=FALSE_SHARE_MAX)
        for number, stand in zip(members, stands, strict=True):
            found[number] = bool(stand)
    return found


def _signal(
    plan: StudyPlan, panel: ReportPanel, latest: _Latest, levels: AlarmLevels, *, is_found: bool
) -> Signal:
    course, place, at = latest.course, latest.place, latest.at
    found = course.track.comparisons[at] if at is not None else None
    level = float(course.track.levels[at][place]) if at is not None else 0.0
    is_beyond = found is not None and bool(found.is_beyond[place])
    look = _look(course, place, levels)
    is_at_alarm = level >= levels.sequential
    state = state_of_signal(
        is_compared=not math.isnan(latest.p_value),
        is_at_alarm=is_at_alarm,
        is_beyond=is_beyond,
        is_found=is_found,
        look=look,
    )
    name = name_of(course.watch, plan)
    is_by_look = state is State.ALERT and not (is_at_alarm and is_beyond)
    return Signal(
        site_id=None if latest.is_pooled else panel.sites[place],
        watch=course.watch,
        name=name,
        period=course.periods[at] if at is not None else "",
        estimate=_number(found.estimate, place) if found is not None else None,
        low=_number(found.low, place) if found is not None else None,
        high=_number(found.high, place) if found is not None else None,
        change=_number(found.change, place) if found is not None else None,
        is_beyond=is_beyond,
        p_value=_number(found.p_value, place) if found is not None else None,
        level=level,
        alarm=levels.sequential,
        is_found=is_found,
        look=look,
        state=state,
        reasons=(),
        words=words_of_signal(name, state, is_by_look=is_by_look),
    )


def _look(course: Course, place: int, levels: AlarmLevels) -> QuarterlyLook | None:
    look = course.look
    if look is None or math.isnan(look.p_value[place]):
        return None
    return QuarterlyLook(
        quarter=course.quarter,
        change=float(look.change[place]),
        p_value=float(look.p_value[place]),
        p_value_max=levels.look_p_value_max,
        is_beyond=bool(look.is_beyond[place]),
    )


def _number(values: Floats, place: int) -> float | None:
    value = float(values[place])
    return None if math.isnan(value) else value
