"""How numbers are printed on every page: the same digits and the same words everywhere."""

from __future__ import annotations

from typing import Final

from server.monitor_board.statistics.noisy_counts import SHOWN_COUNT_MIN
from server.monitor_board.web.views import Number

MINUS: Final = "\N{MINUS SIGN}"  # a screen reader reads a hyphen as a dash
SUPPRESSED: Final = "insufficient data"
_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600


def figure_text(value: float | None) -> str:
    """Return a figure with three decimals, or four digits when it is large; a dash for None."""
    if value is None:
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}".replace("-", MINUS)
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return text.replace("-", MINUS)


def number_text(number: Number) -> str:
    """Return an estimate and its interval, or the words for too little data."""
    if number.value is None:
        return SUPPRESSED
    if number.low is None or number.high is None:
        return figure_text(number.value)
    low, high = figure_text(number.low), figure_text(number.high)
    return f"{figure_text(number.value)} ({low} to {high})"


def count_text(count: int | None) -> str:
    """Return a noisy number of patients, or that it is too small to be shown."""
    return f"below {SHOWN_COUNT_MIN}" if count is None else f"{count:,}"


def age_text(age_s: int | None) -> str:
    """Return how long ago in days or hours, or that it never was."""
    if age_s is None:
        return "never"
    if age_s >= 2 * _DAY_S:
        return f"{age_s // _DAY_S} days"
    return f"{max(0, age_s) // _HOUR_S} hours"
