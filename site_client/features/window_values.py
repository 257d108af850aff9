"""One variable over one part's events: which lie in each row's window, and what they come to.

A row's window is a run of its patient's events in order of time, so its two ends are all that is
searched for. Every number is computed from the row's own run, in one order: by time, simultaneous
values by size. What else is in the part changes no last bit of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from site_client.features.definitions import (
    Aggregate,
    CategoricalVariable,
    NumericVariable,
    Variable,
)
from site_client.features.staged_events import NO_TEXT, GroupEvents, IndexRows

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
_DAY_US: Final = 86400e6
FATES: Final = ("used", "no_value", "other_unit", "implausible")


@dataclass(frozen=True)
class Runs:
    """Each row's run of events.

    Args:
        first: int64 [rows], place of the run's first event.
        stop: int64 [rows], place after its last; never before `first`.
    """

    first: Places
    stop: Places

    def among(self, chosen: npt.NDArray[np.bool_]) -> Runs:
        """Return the runs when only the chosen events stay."""
        before = np.append(0, np.cumsum(chosen))
        return Runs(before[self.first], before[self.stop])

    def count(self) -> int:
        """Return the events in all runs, as often as they are in one."""
        return int((self.stop - self.first).sum())


def runs_in_window(order: Places, rows: IndexRows, *, begins_us: int, ends_us: int) -> Runs:
    """Return the events later than `begins_us` before the index date, up to `ends_us` before it."""
    at = rows.base + rows.offset_us
    first = np.searchsorted(order, at - begins_us, side="right")
    return Runs(first, np.searchsorted(order, at - ends_us, side="right"))


def runs_without_time(order: Places, rows: IndexRows) -> Runs:
    """Return the events of each row's patient that have no time."""
    first = np.searchsorted(order, rows.base, side="left")
    return Runs(first, np.searchsorted(order, rows.base, side="right"))


@dataclass(frozen=True)
class Judged:
    """A group's events as one variable takes them, in order of time, then value.

    Args:
        values: float64 [events], in the plan's unit, or the level's index.
        fate: int8 [events], index in `FATES`; of a categorical variable always used.
        chosen: bool [events], whether the value counts.
    """

    order: Places
    values: Floats
    fate: npt.NDArray[np.int8]
    chosen: npt.NDArray[np.bool_]


def judge(
    events: GroupEvents, variable: Variable, *, units: Sequence[str], texts: dict[str, int]
) -> Judged:
    """Return the events as the variable takes them.

    Args:
        events: of the variable's codes.
        variable: one.
        units: staged units by number.
        texts: staged texts' numbers.
    """
    fate = np.zeros(len(events.order), np.int8)
    if isinstance(variable, CategoricalVariable):
        # The last place is for NO_TEXT.
        levels = np.full(len(texts) + 1, np.nan)
        for text, level in variable.levels.items():
            levels[texts[text]] = level
        values = levels[events.text]
        chosen = (events.text != NO_TEXT) & ~np.isnan(values)
    elif variable.conversions is None:
        values, chosen = np.full(len(fate), np.nan), np.ones(len(fate), bool)
    else:
        values, fate = _converted(events, variable, units)
        chosen = fate == 0
    if len(events.tied):
        # Only now are the values of one moment comparable.
        tied = events.tied
        again = tied[np.lexsort((values[tied], events.order[tied]))]
        values[tied], fate[tied], chosen[tied] = values[again], fate[again], chosen[again]
    return Judged(events.order, values, fate, chosen)


def _converted(
    events: GroupEvents, variable: NumericVariable, units: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.int8]]:
    known = variable.conversions or {}
    factor, shift = np.full((2, len(units)), np.nan)
    for number, unit in enumerate(units):
        if unit in known:
            factor[number], shift[number] = known[unit].factor, known[unit].offset
    low, high = variable.plausible
    of_event = factor[events.unit]
    with np.errstate(over="ignore", invalid="ignore"):
        values = events.value * of_event + shift[events.unit]
        is_plausible = (values >= low) & (values <= high)
    fate = np.where(is_plausible, 0, 3)
    fate = np.where(np.isnan(of_event), 2, fate)
    return values, np.where(np.isnan(events.value), 1, fate).astype(np.int8)


def aggregated(judged: Judged, runs: Runs, rows: IndexRows, aggregate: Aggregate) -> Floats:
    """Return one number a row, NaN where its run is empty.

    Args:
        judged: whose chosen events count.
        runs: among all events.
        rows: of the part.
        aggregate: see `Aggregate`.
    """
    runs = runs.among(judged.chosen)
    number = runs.stop - runs.first
    if aggregate is Aggregate.COUNT:
        return number.astype(np.float64)
    some = np.flatnonzero(number)
    if aggregate is Aggregate.ANY:
        return (number > 0).astype(np.float64)
    found = np.full(len(number), np.nan)
    if not len(some):
        return found
    order, values = judged.order[judged.chosen], judged.values[judged.chosen]
    first, last = runs.first[some], runs.stop[some] - 1
    if aggregate is Aggregate.LAST:
        found[some] = values[last]
    elif aggregate is Aggregate.FIRST:
        # Of simultaneous values the largest, which stands last.
        found[some] = values[np.searchsorted(order, order[first], side="right") - 1]
    elif aggregate is Aggregate.TIME_SINCE:
        found[some] = (rows.base[some] + rows.offset_us[some] - order[last]) / _DAY_US
    else:
        spread = _Spread.of(first, number[some])
        at = rows.base[some] + rows.offset_us[some]
        found[some] = _reduced(aggregate, spread, values, order, at)
    return found


@dataclass(frozen=True)
class _Spread:
    """Runs one after the other: an event stands as often as it is in a run."""

    number: Places
    starts: Places
    places: Places

    @staticmethod
    def of(first: Places, number: Places) -> _Spread:
        starts = np.cumsum(number) - number
        places = np.arange(int(number.sum())) + np.repeat(first - starts, number)
        return _Spread(number, starts, places)

    def sums(self, values: Floats) -> Floats:
        return np.add.reduceat(values, self.starts)

    def per_event(self, of_run: npt.NDArray[np.float64]) -> Floats:
        return np.repeat(of_run, self.number)


def _reduced(
    aggregate: Aggregate, spread: _Spread, of_event: Floats, order: Places, at: Places
) -> Floats:
    values = of_event[spread.places]
    if aggregate is Aggregate.MIN:
        return np.minimum.reduceat(values, spread.starts)
    if aggregate is Aggregate.MAX:
        return np.maximum.reduceat(values, spread.starts)
    if aggregate is Aggregate.MEAN:
        return spread.sums(values) / spread.number
    if aggregate is Aggregate.MEDIAN:
        return _medians(spread, values)
    return _slopes(spread, values, (order[spread.places] - np.repeat(at, spread.number)) / _DAY_US)


def _medians(spread: _Spread, values: Floats) -> Floats:
    by_value = np.argsort(values)
    run = np.repeat(np.arange(len(spread.number)), spread.number)[by_value]
    if len(spread.number) < 1 << 16:
        run = run.astype(np.uint16)  # sorted in linear time
    ordered: Floats = values[by_value[np.argsort(run, kind="stable")]]
    low, high = (ordered[spread.starts + (spread.number - less) // 2] for less in (1, 0))
    medians: Floats = low + (high - low) / 2
    return medians


def _slopes(spread: _Spread, values: Floats, days: Floats) -> Floats:
    """Return least-squares slopes, NaN with one time only; sums of squares about the means."""
    x = days - spread.per_event(spread.sums(days) / spread.number)
    y = values - spread.per_event(spread.sums(values) / spread.number)
    last = spread.starts + spread.number - 1
    several = days[spread.starts] != days[last]
    squares = np.where(several, spread.sums(x * x), np.nan)
    slopes: Floats = spread.sums(x * y) / squares
    return slopes
