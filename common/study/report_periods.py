"""Calendar periods of monitoring, in UTC: weeks (ISO 8601), months, quarters; and their deadlines.

A period's label is "2026-W07", "2026-02" or "2026-Q1". Sites and board use this one calendar.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from common.errors import ProtocolError
from common.study.plan import BinaryLabel, StudyPlan
from common.study.report_tensors import ReportKind

Every = Literal["week", "month", "quarter"]

REFERENCE: Final = "reference"
"""The label of the reference report, which has no period."""
_FORM: Final[dict[Every, re.Pattern[str]]] = {
    "week": re.compile(r"([0-9]{4})-W([0-9]{2})"),
    "month": re.compile(r"([0-9]{4})-([0-9]{2})"),
    "quarter": re.compile(r"([0-9]{4})-Q([1-4])"),
}
_EXAMPLE: Final[dict[Every, str]] = {"week": "2026-W07", "month": "2026-02", "quarter": "2026-Q1"}
_FIRST_MONDAY: Final = datetime.date(1970, 1, 5)
_FIRST_YEAR, _LAST_YEAR = 1970, 2999
_DAY_S: Final = 86_400
_MONTHS: Final[dict[Every, int]] = {"month": 1, "quarter": 3}


@dataclass(frozen=True)
class Period:
    """One period of the calendar.

    Args:
        every: its length.
        label: its name.
        ordinal: 0 for the first that begins in 1970; the next is one more.
        begin_s, end_s: seconds since 1970; the end belongs to the next period.
    """

    every: Every
    label: str
    ordinal: int
    begin_s: int
    end_s: int

    @property
    def following(self) -> Period:
        """The period after it."""
        return period_at(self.end_s, self.every)


def period_at(moment_s: int, every: Every) -> Period:
    """Return the period in which a moment lies; raises `ProtocolError` outside 1970 to 2999."""
    try:
        day = datetime.datetime.fromtimestamp(moment_s, tz=datetime.UTC).date()
    except (ValueError, OverflowError, OSError):
        raise _refuse(every, f"{moment_s} s since 1970") from None
    if not (_FIRST_YEAR <= day.year <= _LAST_YEAR) or (every == "week" and day < _FIRST_MONDAY):
        raise _refuse(every, f"the year {day.year}")
    if every == "week":
        return _week((day - _FIRST_MONDAY).days // 7)
    return _months((day.year - _FIRST_YEAR) * 12 + day.month - 1, every)


def period_of_ordinal(ordinal: int, every: Every) -> Period:
    """Return the period with this ordinal; raises `ProtocolError` outside 1970 to 2999."""
    if not 0 <= ordinal < 60_000:
        raise _refuse(every, f"number {ordinal}")
    return _week(ordinal) if every == "week" else _months(ordinal * _MONTHS[every], every)


def parse_period(label: str, every: Every) -> Period:
    """Return the period of a label; raises `ProtocolError` for anything but its one form."""
    found = _FORM[every].fullmatch(label)
    if found is None:
        raise _refuse(every, repr(label[:40]))
    year, number = int(found[1]), int(found[2])
    try:
        if every == "week":
            first = datetime.date.fromisocalendar(year, number, 1)
        else:
            first = datetime.date(year, number if every == "month" else 3 * number - 2, 1)
        return period_at(_seconds(first), every)
    except ValueError:
        raise _refuse(every, repr(label[:40])) from None


def periods_over(every: Every, *, from_s: int, now_s: int) -> Iterator[Period]:
    """Yield the periods that contain or follow `from_s` and are over at `now_s`, the oldest first.

    Raises:
        ProtocolError: see `period_at`.
    """
    period = period_at(from_s, every)
    while period.end_s <= now_s:
        yield period
        period = period.following


def labels_complete_s(period: Period, label: BinaryLabel) -> int:
    """Return when every patient of a period has an outcome or none: the last window's end."""
    return period.end_s + label.gap_hours * 3600 + label.prediction_window_days * _DAY_S


def report_due_s(plan: StudyPlan, kind: ReportKind, period: Period) -> int:
    """Return from when on a site can make one kind of report about a period."""
    if kind is ReportKind.OUTCOME:
        return labels_complete_s(period, plan.label)
    return period.end_s


def report_late_s(plan: StudyPlan, kind: ReportKind, period: Period) -> int:
    """Return after when the board no longer takes a report."""
    days = plan.monitoring.late_days if plan.monitoring is not None else 0
    return report_due_s(plan, kind, period) + days * _DAY_S


def _week(ordinal: int) -> Period:
    first = _FIRST_MONDAY + datetime.timedelta(weeks=ordinal)
    year, number, _ = first.isocalendar()
    begin_s = _seconds(first)
    return Period("week", f"{year:04d}-W{number:02d}", ordinal, begin_s, begin_s + 7 * _DAY_S)


def _months(month: int, every: Literal["month", "quarter"]) -> Period:
    length = _MONTHS[every]
    ordinal = month // length
    year, first = divmod(ordinal * length, 12)
    name = f"{first + 1:02d}" if every == "month" else f"Q{first // 3 + 1}"
    return Period(
        every,
        f"{_FIRST_YEAR + year:04d}-{name}",
        ordinal,
        _seconds(_first_day(ordinal * length)),
        _seconds(_first_day((ordinal + 1) * length)),
    )


def _first_day(month: int) -> datetime.date:
    return datetime.date(_FIRST_YEAR + month // 12, month % 12 + 1, 1)


def _seconds(day: datetime.date) -> int:
    return (day - datetime.date(1970, 1, 1)).days * _DAY_S


def _refuse(every: Every, arrived: str) -> ProtocolError:
    return ProtocolError(
        f"not a {every} of the calendar",
        expected=f"a label like {_EXAMPLE[every]}, from {_FIRST_YEAR} to {_LAST_YEAR}",
        arrived=arrived,
        todo=f"name the {every} as the plan's `every` says",
    )
