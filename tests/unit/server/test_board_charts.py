"""Charts are drawn from the values of their tables: marks lie where the numbers say."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.monitor_board.signal_types import State
from server.monitor_board.web.charts import (
    forest_plot,
    mark,
    reliability_diagram,
    roc_curve,
    time_series,
)
from server.monitor_board.web.numbers import MINUS, age_text, count_text, figure_text, number_text
from server.monitor_board.web.svg import Scale, element, ticks
from server.monitor_board.web.views import Number, RocPoint, Series, SeriesPoint
from tests.lib.board_views import make_performance, make_study
from tests.lib.html_pages import Page


def _circles(svg: str) -> list[tuple[float, float]]:
    return [(float(item["cx"]), float(item["cy"])) for item in Page(svg).with_tag("circle")]


def test_roc_points_lie_where_their_rates_say() -> None:
    rates = [(1.0, 0.0, 0.0), (0.5, 0.25, 0.75), (0.0, 1.0, 1.0)]
    points = [RocPoint(edge, Number(fpr), Number(tpr)) for edge, fpr, tpr in rates]
    svg = roc_curve([*points, RocPoint(0.9, Number(None), Number(None))], name="roc")
    assert "3 of 4 thresholds" in svg
    [(left, bottom), middle, (right, top)] = _circles(svg)
    assert middle == pytest.approx((left + 0.25 * (right - left), bottom + 0.75 * (top - bottom)))
    assert right - left == pytest.approx(bottom - top)


def test_a_bin_with_too_few_patients_has_no_mark_in_the_reliability_diagram() -> None:
    bins = make_performance(random.Random(1)).reliability
    svg = reliability_diagram(bins, name="reliability")
    assert len(_circles(svg)) == len(bins) - 1
    assert "9 of 10 bins" in Page(svg).text


def test_states_differ_in_shape_and_not_in_colour_alone() -> None:
    shapes = {re.sub(r'class="[^"]*"', "", mark(10, 10, state)) for state in State}
    assert len(shapes) == len(State)


def test_a_series_without_any_number_is_drawn_without_a_mark() -> None:
    series = Series("x", "X", "", (SeriesPoint("2026-01", Number(None), 0.0, State.INSUFFICIENT),))
    page = Page(time_series(series, name="x"))
    assert "0 of 1 periods" in page.text
    assert not page.with_tag("circle")
    assert Page(time_series(dataclasses.replace(series, points=()), name="x")).with_tag("svg")


@given(
    st.lists(
        st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e6), st.sampled_from(State)),
        min_size=1,
        max_size=60,
    )
)
def test_every_mark_of_a_series_is_inside_its_picture(
    values: list[tuple[float, float, State]],
) -> None:
    points = tuple(
        SeriesPoint(f"2026-W{place}", Number(value, value - reach, value + reach), 0.0, state)
        for place, (value, reach, state) in enumerate(values)
    )
    svg = time_series(Series("x", "X", "", points), name="x")
    assert "nan" not in svg
    assert "inf" not in svg
    for x, y in _circles(svg):
        assert 0 <= x <= 640
        assert 0 <= y <= 240


def test_the_forest_plot_has_a_line_for_each_row_and_says_which_are_suppressed() -> None:
    rows = make_study().fairness.rows
    page = Page(forest_plot(rows, tolerance=0.05, name="forest"))
    labels = [item for item in page.with_tag("text") if item.get("class") == "label end"]
    assert len(labels) == len(rows)
    assert page.text.count("insufficient data") == 1
    assert "1 rows are suppressed" in page.text


def test_an_empty_forest_plot_is_a_picture_all_the_same() -> None:
    assert Page(forest_plot((), tolerance=0.05, name="forest")).with_tag("svg")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_rising_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 8
    assert found == sorted(found)
    assert all(low - 0.01 * span <= value <= low + 1.01 * span for value in found)


def test_a_scale_ends_at_its_border() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale(value) for value in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]


@given(st.text())
def test_any_text_in_an_element_comes_out_as_itself(words: str) -> None:
    clean = words.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    page = Page(element("desc", clean, data_x=clean))
    assert page.text == clean
    assert page.elements[0][1]["data-x"] == clean


def test_numbers_are_printed_with_a_true_minus_and_their_interval() -> None:
    assert number_text(Number(-0.25, -0.5, 0.125)) == f"{MINUS}0.250 ({MINUS}0.500 to 0.125)"
    assert number_text(Number(None, 0.1, 0.2)) == "insufficient data"
    assert number_text(Number(0.5)) == "0.500"
    assert figure_text(0.00012) == f"1.2e{MINUS}04"
    assert figure_text(12345.6) == "12,346"
    assert figure_text(0.0) == "0.000"
    assert figure_text(None) == "–"
    assert count_text(1234) == "1,234"
    assert count_text(None) == "below 11"
    assert [age_text(age) for age in (None, 0, 7200, 86_400 * 3)] == [
        "never",
        "0 hours",
        "2 hours",
        "3 days",
    ]
