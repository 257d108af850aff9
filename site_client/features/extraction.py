"""Variables of every index row, from the event table to an array: one pass over the events.

Events that a variable can reach are staged in parts of whole patients; in each part every (row,
variable) becomes one number. Nothing later than the index date is in a row's run of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from site_client.features.definitions import CategoricalVariable, Variable
from site_client.features.staged_events import (
    GroupEvents,
    IndexRows,
    StagedEvents,
    stage_events,
)
from site_client.features.wanted_codes import microseconds
from site_client.features.window_values import (
    FATES,
    Floats,
    Judged,
    Runs,
    aggregated,
    judge,
    runs_in_window,
    runs_without_time,
)
from site_client.sources.local_database import THREADS_MAX

if TYPE_CHECKING:
    import duckdb


@dataclass
class VariableCounts:
    """What was met of one variable in all windows, as counts that stay at the site."""

    used: int = 0
    no_value: int = 0
    other_unit: int = 0
    implausible: int = 0


@dataclass(frozen=True)
class Extraction:
    """Values of all rows.

    Args:
        values: float64 [rows, ..., variables]: numbers in the plan's units, or a level's index; NaN
            where nothing was recorded. In memory each variable's numbers stand together.
        counts: per variable.
    """

    values: npt.NDArray[np.float64]
    counts: tuple[VariableCounts, ...] = field(default=())


def extract(connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable]) -> Extraction:
    """Return the variables of `index_rows` over `events`, two tables of the connection.

    Only events of the patients of `index_rows` count: with some of the rows, the result is that of
    these rows, to the bit.
    """
    binned = extract_bins(connection, variables, bins=1)
    return Extraction(binned.values[:, 0], binned.counts)


def extract_bins(
    connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable], *, bins: int
) -> Extraction:
    """Return each variable in each of `bins` equal parts of its window, the oldest first.

    A bin holds its later end and not its earlier one, as the window does.

    Args:
        connection: see `extract`.
        variables: with windows of one or different lengths.
        bins: at least 1.

    Returns:
        values of [rows, bins, variables].
    """
    with stage_events(connection, variables) as staged:
        return extract_staged(staged, variables, bins=bins)


def extract_staged(
    staged: StagedEvents,
    variables: Sequence[Variable],
    *,
    bins: int = 1,
    threads: int = THREADS_MAX,
) -> Extraction:
    """Return the variables from staged events; see `extract_bins`.

    Args:
        staged: for these variables, whose conversions may have been unknown then.
        variables: the same codes, windows and levels.
        bins: at least 1.
        threads: parts worked on at a time: NumPy's steps leave the interpreter to the other part.
    """
    values = np.full((len(variables), bins, staged.rows), np.nan)
    totals = np.zeros((len(variables), len(FATES)), np.int64)
    with ThreadPoolExecutor(threads) as pool:

        def extract_part(number: int) -> npt.NDArray[np.int64]:
            rows, events = staged.part(number)
            part = _Part(staged, rows, events)
            return np.array([part.fill(values[i], item) for i, item in enumerate(variables)])

        for found in pool.map(extract_part, range(staged.parts)):
            totals += found
    counts = tuple(VariableCounts(*(int(item) for item in row)) for row in totals)
    return Extraction(values.transpose(2, 1, 0), counts)


_NOTHING = GroupEvents(
    np.empty(0, np.int64),
    np.empty(0),
    np.empty(0, np.int32),
    np.empty(0, np.int32),
    np.empty(0, np.int64),
)


@dataclass(frozen=True)
class _Part:
    staged: StagedEvents
    rows: IndexRows
    events: dict[int, GroupEvents]
    found: dict[tuple[int, int, int], Runs] = field(default_factory=dict)

    def fill(self, into: Floats, variable: Variable) -> npt.NDArray[np.int64]:
        """Fill [bins, all rows] at the part's rows; returns how many events had each fate."""
        group = self.staged.groups[variable.codes]
        events = self.events.get(group, _NOTHING)
        judged = judge(events, variable, units=self.staged.units, texts=self.staged.texts)
        begins, ends = microseconds(variable.window.begins), microseconds(variable.window.ends)
        bins = len(into)
        width = -(-(begins - ends) // bins)
        fates = np.zeros(len(FATES), np.int64)
        for age in range(bins):
            latest = min(begins, ends + age * width)
            runs = self._runs(group, min(begins, latest + width), latest)
            where = bins - 1 - age
            if isinstance(variable, CategoricalVariable):
                always = runs_without_time(events.order, self.rows) if age == 0 else None
                into[where, self.rows.row_id] = _levels(judged, runs, always)
                fates[0] += runs.count() + (always.count() if always else 0)
            else:
                into[where, self.rows.row_id] = aggregated(
                    judged, runs, self.rows, variable.aggregate
                )
                fates += _fates(judged, runs)
        return fates

    def _runs(self, group: int, begins_us: int, ends_us: int) -> Runs:
        key = (group, begins_us, ends_us)
        if key not in self.found:
            order = self.events.get(group, _NOTHING).order
            self.found[key] = runs_in_window(order, self.rows, begins_us=begins_us, ends_us=ends_us)
        return self.found[key]


def _levels(judged: Judged, runs: Runs, always: Runs | None) -> Floats:
    values = judged.values[judged.chosen]
    found = np.full(len(runs.first), np.nan)
    # What has no time comes first, so that anything with a time is later.
    for candidates in (always, runs):
        if candidates is not None:
            inside = candidates.among(judged.chosen)
            some = np.flatnonzero(inside.stop > inside.first)
            found[some] = values[inside.stop[some] - 1]
    return found


def _fates(judged: Judged, runs: Runs) -> npt.NDArray[np.int64]:
    """Return how many events of the runs had each fate."""
    others = [
        runs.among(judged.fate == fate).count() if (judged.fate == fate).any() else 0
        for fate in range(1, len(FATES))
    ]
    return np.array([runs.count() - sum(others), *others], np.int64)
