"""The dashboard's charts as inline SVG, made from the same values as the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from server.monitor_board.signal_types import State
from server.monitor_board.web.numbers import SUPPRESSED, number_text
from server.monitor_board.web.states import UNTESTED, WORDS
from server.monitor_board.web.svg import (
    Scale,
    element,
    line,
    path_through,
    picture,
    text,
    tick_text,
    ticks,
)
from server.monitor_board.web.views import (
    FairnessRow,
    ReliabilityBin,
    RocPoint,
    Series,
    SeriesPoint,
)

_SQUARE_PX: Final = 340
_LEFT_PX: Final = 52
_TOP_PX: Final = 12
_BOTTOM_PX: Final = 44
_SERIES: Final = (640, 240)
_FOREST_WIDTH_PX: Final = 960
_FOREST_LABEL_PX: Final = 470
_FOREST_ROW_PX: Final = 24
_LABELS_MAX: Final = 9
_LABEL_LETTERS_MAX: Final = 72


def reliability_diagram(bins: Sequence[ReliabilityBin], *, name: str) -> Markup:
    """Return observed against predicted risk with intervals and the line of perfect calibration."""
    x, y, frame = _unit_square("predicted risk", "observed share")
    parts = [frame, line(x(0), y(0), x(1), y(1), class_="guide")]
    shown = [item for item in bins if item.observed.value is not None]
    for item in shown:
        parts.extend(_whisker(x(item.predicted), y, item.observed.low, item.observed.high))
    places = [(x(item.predicted), y(item.observed.value or 0.0)) for item in shown]
    parts.append(path_through(places, class_="curve"))
    parts.extend(element("circle", cx=px, cy=py, r=4, class_="mark ok") for px, py in places)
    description = (
        f"{len(shown)} of {len(bins)} bins have enough patients; on the dashed diagonal the "
        "observed share equals the predicted risk."
    )
    return picture(name, "Reliability diagram", description, _square_size(), *parts)


def roc_curve(points: Sequence[RocPoint], *, name: str) -> Markup:
    """Return the true against the false positive rate; the diagonal is chance."""
    x, y, frame = _unit_square("false positive rate", "true positive rate")
    known = [
        (x(item.false_positive_rate.value), y(item.true_positive_rate.value))
        for item in points
        if item.false_positive_rate.value is not None and item.true_positive_rate.value is not None
    ]
    # At no threshold nobody is called positive, at the lowest everybody.
    corners = [(x(0), y(0)), (x(1), y(1))]
    parts = [
        frame,
        line(x(0), y(0), x(1), y(1), class_="guide"),
        path_through(sorted([*known, *corners], key=lambda at: (at[0], -at[1])), class_="curve"),
        *(element("circle", cx=px, cy=py, r=3, class_="mark ok") for px, py in known),
    ]
    description = (
        f"{len(known)} of {len(points)} thresholds have enough patients; the dashed diagonal is "
        "what chance would give."
    )
    return picture(name, "ROC curve", description, _square_size(), *parts)


def time_series(series: Series, *, name: str) -> Markup:
    """Return one quantity over periods, with intervals, states as shapes, and tolerances."""
    width, height = _SERIES
    points = series.points
    low, high = _range_of(series)
    y = Scale(low, high, height - _BOTTOM_PX, _TOP_PX)
    x = Scale(-0.5, max(len(points) - 0.5, 0.5), _LEFT_PX, width - 12)
    parts = _left_axis(y, _LEFT_PX, width - 12)
    for limit in (series.limit_low, series.limit_high):
        if limit is not None:
            parts.append(line(_LEFT_PX, y(limit), width - 12, y(limit), class_="limit"))
    parts.extend(_period_labels(points, x, height))
    known = [(place, item) for place, item in enumerate(points) if item.number.value is not None]
    for place, item in known:
        parts.extend(_whisker(x(place), y, item.number.low, item.number.high))
    parts.append(
        path_through(
            [(x(place), y(item.number.value or 0.0)) for place, item in known], class_="curve"
        )
    )
    parts.extend(mark(x(place), y(item.number.value or 0.0), _shape(item)) for place, item in known)
    description = f"{len(known)} of {len(points)} periods have enough patients."
    if series.limit_low is not None or series.limit_high is not None:
        description += " Dashed lines are the plan's tolerances."
    return picture(name, series.title, description, _SERIES, *parts)


def forest_plot(rows: Sequence[FairnessRow], *, tolerance: float, name: str) -> Markup:
    """Return gaps between a group and all others with intervals, zero and the tolerance.

    A suppressed row keeps its line and says so in words.
    """
    height = _TOP_PX + _FOREST_ROW_PX * len(rows) + _BOTTOM_PX
    bounds = [abs(value) for row in rows for value in _values(row)] + [1.5 * tolerance]
    reach = min(1.0, max(bounds) * 1.05)
    x = Scale(-reach, reach, _FOREST_LABEL_PX, _FOREST_WIDTH_PX - 16)
    bottom = height - _BOTTOM_PX + 4
    parts = [
        element(
            "rect",
            x=x(-tolerance),
            y=_TOP_PX,
            width=x(tolerance) - x(-tolerance),
            height=bottom - _TOP_PX,
            class_="band",
        ),
        line(x(0), _TOP_PX, x(0), bottom, class_="guide"),
        line(x(-reach), bottom, x(reach), bottom, class_="axis"),
    ]
    for place in ticks(-reach, reach):
        parts.append(text(x(place), bottom + 16, tick_text(place), class_="tick middle"))
    parts.append(text(x(0), bottom + 34, "gap: group minus all others", class_="label middle"))
    for place, row in enumerate(rows):
        parts.extend(_forest_row(row, x, _TOP_PX + _FOREST_ROW_PX * (place + 0.5)))
    description = (
        f"{len(rows)} gaps; the band is the tolerance of {tolerance:g}; "
        f"{sum(row.number.value is None for row in rows)} rows are suppressed."
    )
    return picture(name, "Forest plot", description, (_FOREST_WIDTH_PX, height), *parts)


def mark(x: float, y: float, state: State) -> Markup:
    """Return a state's mark: triangle ALERT, square SILENT, diamond WATCH, dot OK, ring too few."""
    if state is State.ALERT:
        return element("path", d=f"M{x:.1f},{y - 7:.1f}l7,12h-14z", class_="mark alert")
    if state is State.SILENT:
        return element("path", d=f"M{x - 5:.1f},{y - 5:.1f}h10v10h-10z", class_="mark silent")
    if state is State.WATCH:
        d = f"M{x:.1f},{y - 6.5:.1f}l6,6.5l-6,6.5l-6,-6.5z"
        return element("path", d=d, class_="mark watch")
    if state is State.INSUFFICIENT:
        return element("circle", cx=x, cy=y, r=5, class_="mark few")
    return element("circle", cx=x, cy=y, r=4, class_="mark ok")


def _forest_row(row: FairnessRow, x: Scale, y: float) -> list[Markup]:
    label = f"{row.where} · {row.feature} = {row.level} · {row.metric}"
    if len(label) > _LABEL_LETTERS_MAX:
        label = label[: _LABEL_LETTERS_MAX - 1] + "…"
    parts = [text(_FOREST_LABEL_PX - 10, y + 4, label, class_="label end")]
    if row.number.value is None:
        return [*parts, text(x(0) + 6, y + 4, SUPPRESSED, class_="label few")]
    if row.number.low is not None and row.number.high is not None:
        parts.append(line(x(row.number.low), y, x(row.number.high), y, class_="whisker"))
    tip = element("title", f"{label}: {number_text(row.number)}, {_state_words(row.state)}")
    return [*parts, element("g", tip, mark(x(row.number.value), y, row.state or State.OK))]


def _shape(point: SeriesPoint) -> State:
    if point.state is not None:
        return point.state
    return State.WATCH if point.evidence >= 1 else State.OK


def _state_words(state: State | None) -> str:
    return UNTESTED if state is None else WORDS[state]


def _values(row: FairnessRow) -> list[float]:
    bounds = (row.number.value, row.number.low, row.number.high)
    return [value for value in bounds if value is not None]


def _whisker(x: float, y: Scale, low: float | None, high: float | None) -> list[Markup]:
    if low is None or high is None:
        return []
    return [line(x, y(low), x, y(high), class_="whisker")]


def _square_size() -> tuple[int, int]:
    return _LEFT_PX + _SQUARE_PX + 12, _TOP_PX + _SQUARE_PX + _BOTTOM_PX


def _unit_square(horizontal: str, vertical: str) -> tuple[Scale, Scale, Markup]:
    bottom = _TOP_PX + _SQUARE_PX
    x = Scale(0, 1, _LEFT_PX, _LEFT_PX + _SQUARE_PX)
    y = Scale(0, 1, bottom, _TOP_PX)
    parts = _left_axis(y, _LEFT_PX, _LEFT_PX + _SQUARE_PX)
    parts.append(line(_LEFT_PX, bottom, _LEFT_PX + _SQUARE_PX, bottom, class_="axis"))
    parts.extend(
        text(x(place), bottom + 16, tick_text(place), class_="tick middle") for place in ticks(0, 1)
    )
    parts.append(text(x(0.5), bottom + 36, horizontal, class_="label middle"))
    parts.append(
        text(
            0,
            0,
            vertical,
            class_="label middle",
            transform=f"translate(14 {y(0.5):.0f}) rotate(-90)",
        )
    )
    return x, y, element("g", *parts)


def _left_axis(y: Scale, left: float, right: float) -> list[Markup]:
    parts = [line(left, y.first_px, left, y.last_px, class_="axis")]
    for place in ticks(y.low, y.high):
        parts.append(line(left, y(place), right, y(place), class_="grid"))
        parts.append(text(left - 6, y(place) + 4, tick_text(place), class_="tick end"))
    return parts


def _period_labels(points: Sequence[SeriesPoint], x: Scale, height: int) -> list[Markup]:
    every = max(1, -(-len(points) // _LABELS_MAX))
    return [
        text(x(place), height - _BOTTOM_PX + 18, item.period, class_="tick middle")
        for place, item in enumerate(points)
        if place % every == 0
    ]


def _range_of(series: Series) -> tuple[float, float]:
    values = [
        value
        for item in series.points
        for value in (item.number.value, item.number.low, item.number.high)
        if item.number.value is not None and value is not None
    ]
    values += [limit for limit in (series.limit_low, series.limit_high) if limit is not None]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin
