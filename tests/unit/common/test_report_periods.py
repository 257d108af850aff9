"""The calendar of monitoring: against the standard library and pandas, over nine centuries."""

from __future__ import annotations

import datetime
from itertools import pairwise

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.study.report_periods import (
    Every,
    labels_complete_s,
    parse_period,
    period_at,
    period_of_ordinal,
    periods_over,
    report_due_s,
    report_late_s,
)
from common.study.report_tensors import ReportKind
from tests.lib.plans import make_plan

EVERY: tuple[Every, ...] = ("week", "month", "quarter")
_MOMENTS = st.integers(4 * 86_400, 32_472_144_000 - 1)  # Monday 5 January 1970 to the end of 2998


def _day(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)


@given(_MOMENTS)
def test_a_moment_lies_in_the_period_that_the_calendar_says(moment_s: int) -> None:
    day = _day(moment_s)
    year, week, _ = day.isocalendar()
    assert period_at(moment_s, "week").label == f"{year}-W{week:02d}"
    assert period_at(moment_s, "month").label == f"{day:%Y-%m}"
    assert period_at(moment_s, "quarter").label == f"{day.year}-Q{(day.month + 2) // 3}"


@pytest.mark.parametrize("every", EVERY)
@given(moment_s=_MOMENTS)
def test_periods_follow_each_other_without_gap_and_their_labels_read_back(
    every: Every, moment_s: int
) -> None:
    period = period_at(moment_s, every)
    assert period.begin_s <= moment_s < period.end_s
    assert parse_period(period.label, every) == period
    assert period.following.begin_s == period.end_s
    assert period.following.ordinal == period.ordinal + 1
    assert period_at(period.end_s - 1, every) == period
    assert period_of_ordinal(period.ordinal, every) == period


def test_a_decade_of_months_and_quarters_is_pandas_own() -> None:
    for every, letter in (("month", "M"), ("quarter", "Q")):
        begin, end = parse_period("2019-01" if letter == "M" else "2019-Q1", every), 1_900_000_000
        found = list(periods_over(every, from_s=begin.begin_s, now_s=end))
        expected = pandas.period_range("2019-01-01", periods=len(found), freq=letter)
        assert [_day(item.begin_s).date() for item in found] == [
            item.start_time.date() for item in expected
        ]
        assert all(one.end_s == other.begin_s for one, other in pairwise(found))


def test_only_periods_that_are_over_to_the_last_second_are_listed() -> None:
    february = parse_period("2026-02", "month")
    over = periods_over("month", from_s=february.begin_s + 5, now_s=february.end_s)
    assert list(over) == [february]
    assert not list(periods_over("month", from_s=february.begin_s, now_s=february.end_s - 1))


@pytest.mark.parametrize(
    ("label", "every"),
    [
        ("2026-W54", "week"),
        ("2026-W00", "week"),
        ("2025-W53", "week"),  # 2025 has 52 weeks
        ("2026-13", "month"),
        ("2026-00", "month"),
        ("2026-2", "month"),
        ("2026-Q5", "quarter"),
        ("2026-02", "week"),
        ("1969-12", "month"),
        ("reference", "month"),
        (" 2026-02", "month"),
        ("\uff12\uff10\uff12\uff16-02", "month"),
    ],
)
def test_what_is_no_period_is_refused(label: str, every: Every) -> None:
    with pytest.raises(ProtocolError):
        parse_period(label, every)


def test_labels_are_complete_when_the_last_patients_window_has_ended() -> None:
    plan = make_plan(label__prediction_window_days=30, label__gap_hours=48)
    february = parse_period("2026-02", "month")
    complete = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=32)
    assert _day(labels_complete_s(february, plan.label)) == complete
    assert report_due_s(plan, ReportKind.OUTCOME, february) == complete.timestamp()
    assert report_due_s(plan, ReportKind.CASE_MIX, february) == february.end_s
    for kind in (ReportKind.OUTCOME, ReportKind.CASE_MIX):
        late = report_late_s(plan, kind, february) - report_due_s(plan, kind, february)
        assert late == 14 * 86_400
