"""Variables of every index row, from the event table to an array: one pass over the events.

Events are joined to the codes asked for and to the index rows of their patient, windows applied,
and each (row, variable) reduced to one number; the numbers are scattered into [rows, variables].
Nothing later than the index date passes the join.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from site_client.features.definitions import (
    Aggregate,
    CategoricalVariable,
    NumericVariable,
    Variable,
)
from site_client.features.wanted_codes import microseconds, put_table

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS: Final = 1_000_000
_ANY_UNIT: Final = "\0"
"""No unit of a source holds a NUL: stands for variables whose number does not matter."""


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
            where nothing was recorded.
        counts: per variable.
    """

    values: npt.NDArray[np.float64]
    counts: tuple[VariableCounts, ...] = field(default=())


def extract(connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable]) -> Extraction:
    """Return the variables of `index_rows` over `events`, two tables of the connection."""
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
    _put_variables(connection, variables, bins=bins)
    [(rows,)] = connection.execute("SELECT count(*) FROM index_rows").fetchall()
    values = np.full((rows, bins, len(variables)), np.nan)
    connection.execute(_REACHED)
    for query in (_NUMBERS, _SUMS, _MEDIANS, _LEVELS):
        _scatter(connection, query, values)
    for place, variable in enumerate(variables):
        if isinstance(variable, NumericVariable) and variable.aggregate in _ZERO_IF_NONE:
            column = values[..., place]
            column[np.isnan(column)] = 0.0
    return Extraction(values, _counts(connection, len(variables)))


def forward_filled(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return [rows, bins, variables] in which a bin without a value has the last one before it."""
    places = np.where(np.isnan(values), 0, np.arange(values.shape[1])[None, :, None])
    return np.take_along_axis(values, np.maximum.accumulate(places, axis=1), axis=1)


_ZERO_IF_NONE: Final = (Aggregate.COUNT, Aggregate.ANY)


def _put_variables(
    connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable], *, bins: int
) -> None:
    asked: list[tuple[int, str, float, float, int, int, int]] = []
    codes: list[tuple[int, str]] = []
    units: list[tuple[int, str, float, float]] = []
    levels: list[tuple[int, str, int]] = []
    for place, variable in enumerate(variables):
        begins, ends = microseconds(variable.window.begins), microseconds(variable.window.ends)
        width = -(-(begins - ends) // bins)
        codes += [(place, code) for code in sorted(variable.codes)]
        if isinstance(variable, CategoricalVariable):
            asked.append((place, "level", 0.0, 0.0, begins, ends, width))
            levels += [(place, text, index) for text, index in variable.levels.items()]
            continue
        low, high = variable.plausible
        asked.append((place, variable.aggregate.value, low, high, begins, ends, width))
        conversions = variable.conversions
        if conversions is None:
            units.append((place, _ANY_UNIT, 0.0, 0.0))
        else:
            units += [(place, unit, c.factor, c.offset) for unit, c in conversions.items()]
    names = ("variable", "aggregate", "low", "high", "begins", "ends", "width")
    _put(connection, "asked", names, asked)
    _put(connection, "asked_code", ("variable", "code"), codes)
    _put(connection, "asked_unit", ("variable", "unit", "factor", "shift"), units)
    _put(connection, "asked_level", ("variable", "text_value", "level"), levels)


_TYPES: Final = {
    "variable": pa.int32(),
    "aggregate": pa.string(),
    "code": pa.string(),
    "unit": pa.string(),
    "text_value": pa.string(),
    "level": pa.int32(),
    "begins": pa.int64(),
    "ends": pa.int64(),
    "width": pa.int64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "factor": pa.float64(),
    "shift": pa.float64(),
}


def _put(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
) -> None:
    arrays = {
        column: pa.array([row[place] for row in rows], _TYPES[column])
        for place, column in enumerate(columns)
    }
    put_table(connection, name, pa.table(arrays))


def _scatter(
    connection: duckdb.DuckDBPyConnection, query: str, into: npt.NDArray[np.float64]
) -> None:
    for batch in connection.sql(query).to_arrow_reader(_BATCH_ROWS):
        rows, ages, places, found = (item.to_numpy(zero_copy_only=False) for item in batch.columns)
        into[rows, into.shape[1] - 1 - ages, places] = found


def _counts(connection: duckdb.DuckDBPyConnection, variables: int) -> tuple[VariableCounts, ...]:
    counts = tuple(VariableCounts() for _ in range(variables))
    for place, fate, found in connection.execute(_FATES).fetchall():
        setattr(counts[place], fate, found)
    return counts


_REACHED: Final = """
CREATE OR REPLACE TEMP VIEW reached AS
SELECT i.row_id, a.variable, a.aggregate, e.time, i.index_time, e.text_value,
  coalesce((epoch_us(i.index_time) - a.ends - epoch_us(e.time)) // a.width, 0) AS age,
  CASE WHEN a.aggregate = 'level' THEN NULL ELSE e.numeric_value * u.factor + u.shift END AS value,
  CASE WHEN a.aggregate = 'level' OR anything.unit IS NOT NULL THEN 'used'
    WHEN e.numeric_value IS NULL THEN 'no_value'
    WHEN u.unit IS NULL THEN 'other_unit'
    WHEN NOT (e.numeric_value * u.factor + u.shift BETWEEN a.low AND a.high) THEN 'implausible'
    ELSE 'used' END AS fate
FROM events e
JOIN asked_code c ON c.code = e.code
JOIN asked a ON a.variable = c.variable
JOIN index_rows i ON i.subject_id = e.subject_id
LEFT JOIN asked_unit u ON u.variable = a.variable AND u.unit = coalesce(e.unit, '')
LEFT JOIN asked_unit anything ON anything.variable = a.variable AND anything.unit = chr(0)
WHERE (e.time > i.index_time - to_microseconds(a.begins)
    AND e.time <= i.index_time - to_microseconds(a.ends))
  OR (e.time IS NULL AND a.aggregate = 'level')
"""
# A struct compares field by field, so that simultaneous values do not depend on the rows' order.
_NUMBERS: Final = """
SELECT row_id, age, variable, CASE aggregate
    WHEN 'last' THEN arg_max(value, {'t': time, 'v': value})
    WHEN 'first' THEN arg_min(value, {'t': time, 'v': -value})
    WHEN 'min' THEN min(value)
    WHEN 'max' THEN max(value)
    WHEN 'count' THEN count(*)
    WHEN 'any' THEN 1
    WHEN 'time_since' THEN min(epoch_us(index_time) - epoch_us(time)) / 86400e6
  END::DOUBLE AS number
FROM reached WHERE fate = 'used' AND aggregate NOT IN ('level', 'median', 'mean', 'slope')
GROUP BY row_id, age, variable, aggregate HAVING number IS NOT NULL
"""
# The last bits of a sum depend on its order, which another row elsewhere may change.
_SUMS: Final = """
SELECT row_id, age, variable, CASE aggregate
    WHEN 'mean' THEN favg(value ORDER BY time, value)
    ELSE regr_slope(value, (epoch_us(time) - epoch_us(index_time)) / 86400e6 ORDER BY time, value)
  END::DOUBLE AS number
FROM reached WHERE fate = 'used' AND aggregate IN ('mean', 'slope')
GROUP BY row_id, age, variable, aggregate HAVING number IS NOT NULL
"""
_MEDIANS: Final = """
SELECT row_id, age, variable, median(value)::DOUBLE FROM reached
WHERE fate = 'used' AND aggregate = 'median' GROUP BY row_id, age, variable
"""
_LEVELS: Final = """
SELECT r.row_id, r.age, r.variable,
  arg_max(l.level, {'t': coalesce(r.time, TIMESTAMP '0001-01-01'), 'v': l.level})::DOUBLE
FROM reached r JOIN asked_level l ON l.variable = r.variable AND l.text_value = r.text_value
WHERE r.aggregate = 'level' GROUP BY r.row_id, r.age, r.variable
"""
_FATES: Final = "SELECT variable, fate, count(*) FROM reached GROUP BY variable, fate"
