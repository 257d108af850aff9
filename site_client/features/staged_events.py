"""Events that some variable can reach, read once and put down in parts, each of whole patients.

A part's events fit into memory; patients are in parts in the order of their rows. Each event has
one number that orders it: its patient's place in the part, then its time. Parts lie in the
database's own folder for what does not fit into memory, and are gone when the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from site_client.features.definitions import CategoricalVariable, Variable
from site_client.features.wanted_codes import microseconds, put_table
from site_client.sources.source_files import stream_sql

if TYPE_CHECKING:
    import duckdb

_PATIENTS_PER_PART_MAX: Final = 16_384
_BATCH_ROWS: Final = 100_000
_UNITS_COUNTED_MAX: Final = 1000
_EVENT: Final = np.dtype(
    [("order", "i8"), ("value", "f8"), ("unit", "i4"), ("text", "i4"), ("group", "u2")],
)
NO_TEXT: Final = -1


@dataclass(frozen=True)
class IndexRows:
    """Rows of one part, by patient and index date.

    Args:
        row_id: int64 [rows], places in the result.
        base: int64 [rows], the order of an event of the row's patient without a time.
        offset_us: int64 [rows], the index date; `base` plus it is the order of an event then.
    """

    row_id: npt.NDArray[np.int64]
    base: npt.NDArray[np.int64]
    offset_us: npt.NDArray[np.int64]


@dataclass(frozen=True)
class GroupEvents:
    """Events of one set of codes in one part, by patient and time; see `StagedEvents.part`.

    Args:
        order: int64 [events], ascending.
        value: float64 [events], as recorded; NaN where there is none.
        unit: int32 [events], index in the staged units.
        text: int32 [events], index in the staged texts, `NO_TEXT` for any other.
        tied: int64 [...], places of events that share patient and time with another.
    """

    order: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    unit: npt.NDArray[np.int32]
    text: npt.NDArray[np.int32]
    tied: npt.NDArray[np.int64]


@dataclass(frozen=True)
class StagedEvents:
    """What `stage_events` put down.

    Args:
        groups: each variable's set of codes, to its number.
        texts: each level's text, to its number.
        units: as recorded, "" for none.
        group_units: numbers of the units with which events of a group were recorded.
        parts: number of them.
    """

    groups: dict[frozenset[str], int]
    texts: dict[str, int]
    rows: int
    parts: int
    _folder: Path
    _index: list[IndexRows]
    units: list[str] = field(default_factory=list)
    group_units: dict[int, set[int]] = field(default_factory=dict)

    def units_of(self, codes: frozenset[str]) -> list[str | None]:
        """Return the units with which events of these codes were recorded, within reach."""
        numbers = self.group_units.get(self.groups[codes], set())
        return [*sorted(self.units[number] for number in numbers)]

    def part(self, number: int) -> tuple[IndexRows, dict[int, GroupEvents]]:
        """Return the rows of a part and its events by group; a group without events is absent."""
        path = _path(self._folder, number)
        found = np.fromfile(path, _EVENT) if path.exists() else np.empty(0, _EVENT)
        columns = {name: np.ascontiguousarray(found[name]) for name in _EVENT.names or ()}
        by_group = np.argsort(columns["group"], kind="stable")
        groups = columns["group"][by_group]
        events = {
            group: _sorted_events(columns, by_group[first:stop])
            for group, first, stop in _stretches(groups)
        }
        return self._index[number], events


@contextmanager
def stage_events(
    connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable]
) -> Iterator[StagedEvents]:
    """Read `events` once for the patients of `index_rows`, two tables of the connection.

    Of a variable only codes, window and levels matter here: units are known afterwards.

    Raises:
        DataSourceError: when a source's file, read in place, turns out to be damaged.
    """
    [(scratch,)] = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    with TemporaryDirectory(dir=scratch or None, prefix="staged-events-") as folder:
        yield _stage(connection, variables, Path(folder))


def _stage(
    connection: duckdb.DuckDBPyConnection, variables: Sequence[Variable], folder: Path
) -> StagedEvents:
    groups = {item.codes: 0 for item in variables}
    groups = {codes: number for number, codes in enumerate(groups)}
    texts = {
        text: 0
        for item in variables
        if isinstance(item, CategoricalVariable)
        for text in item.levels
    }
    texts = {text: number for number, text in enumerate(texts)}
    longest = max((microseconds(item.window.begins) for item in variables), default=1)
    index, first_us, span, per_part = _put_subjects(connection, longest)
    _put_codes(connection, variables, groups)
    rows = sum(len(part.row_id) for part in index)
    staged = StagedEvents(groups, texts, rows, len(index), folder, index)
    if rows:
        _read(connection, staged, first_us=first_us, span=span, per_part=per_part)
    return staged


def _put_subjects(
    connection: duckdb.DuckDBPyConnection, longest_us: int
) -> tuple[list[IndexRows], int, int, int]:
    """Make `staged_subject` and return the parts' rows, time's origin and span, patients a part."""
    connection.execute(_SUBJECTS)
    found = connection.execute(_ROWS).fetchnumpy()
    row_id, place, index_us = (np.asarray(found[name]) for name in ("row_id", "place", "index_us"))
    if not len(row_id):
        return [], 0, 1, 1
    by_time = np.lexsort((index_us, place))
    row_id, place, index_us = row_id[by_time], place[by_time], index_us[by_time]
    # Zero is for events without time; a window's events come after it.
    first_us = int(index_us.min()) - longest_us
    span = int(index_us.max()) - first_us + 1
    per_part = max(1, min(_PATIENTS_PER_PART_MAX, np.iinfo(np.int64).max // span))
    parts = int(place[-1]) // per_part + 1
    edges = np.searchsorted(place, np.arange(parts + 1) * per_part)
    base = place % per_part * span
    return (
        [
            IndexRows(row_id[a:b], base[a:b], index_us[a:b] - first_us)
            for a, b in pairwise(edges.tolist())
        ],
        first_us,
        span,
        per_part,
    )


def _put_codes(
    connection: duckdb.DuckDBPyConnection,
    variables: Sequence[Variable],
    groups: dict[frozenset[str], int],
) -> None:
    reach = dict.fromkeys(groups, 0)
    with_levels = set()
    for item in variables:
        reach[item.codes] = max(reach[item.codes], microseconds(item.window.begins))
        if isinstance(item, CategoricalVariable):
            with_levels.add(item.codes)
    rows = [
        (code, number, reach[codes], codes in with_levels)
        for codes, number in groups.items()
        for code in sorted(codes)
    ]
    kinds = {
        "code": "VARCHAR",
        "code_group": "USMALLINT",
        "reach": "BIGINT",
        "has_levels": "BOOLEAN",
    }
    columns = {
        name: (kind, [row[place] for row in rows])
        for place, (name, kind) in enumerate(kinds.items())
    }
    put_table(connection, "staged_code", columns)


def _read(
    connection: duckdb.DuckDBPyConnection,
    staged: StagedEvents,
    *,
    first_us: int,
    span: int,
    per_part: int,
) -> None:
    units: dict[str, int] = {}
    parameters = {"first": first_us, "span": span, "patients": per_part}
    batches = stream_sql(
        connection,
        _EVENTS,
        place="the source's events",
        parameters=parameters,
        batch_rows=_BATCH_ROWS,
    )
    for batch in batches:
        part, group = (_numbers(batch.column(name)) for name in ("part", "code_group"))
        events = np.empty(len(batch), _EVENT)
        events["order"] = _numbers(batch.column("event_order"))
        events["value"] = _numbers(batch.column("value"))
        events["group"] = group
        events["unit"] = _numbered(
            batch.column("unit"), lambda unit: units.setdefault(unit or "", len(units))
        )
        events["text"] = _numbered(
            batch.column("text_value"), lambda text: staged.texts.get(text or "", NO_TEXT)
        )
        _note_units(staged.group_units, group, events["unit"], len(units))
        by_part = np.argsort(part, kind="stable")
        events = events.take(by_part)  # ten times as fast as by index
        for number, first, stop in _stretches(part[by_part]):
            with _path(staged._folder, number).open("ab") as stream:
                events[first:stop].tofile(stream)
    staged.units.extend(units)


def _note_units(
    known: dict[int, set[int]],
    group: npt.NDArray[np.uint16],
    unit: npt.NDArray[np.int32],
    units: int,
) -> None:
    pairs = group.astype(np.int64) * units + unit
    # A free text in place of a unit has as many words as rows.
    is_small = units <= _UNITS_COUNTED_MAX
    pairs = np.flatnonzero(np.bincount(pairs)) if is_small else np.unique(pairs)
    for number, place in zip(*np.divmod(pairs, units), strict=True):
        known.setdefault(int(number), set()).add(int(place))


def _numbered(words: pa.Array, number_of: Callable[[str | None], int]) -> npt.NDArray[np.int32]:
    """Return each word's number; a number is asked for once a word, null among them."""
    coded = words.dictionary_encode(null_encoding="encode")
    table = np.array([number_of(word) for word in coded.dictionary.to_pylist()], np.int32)
    numbered: npt.NDArray[np.int32] = table[_numbers(coded.indices)]
    return numbered


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    """Return a column without nulls as it lies in memory; Arrow's own way imports pandas."""
    found: npt.NDArray[Any] = np.from_dlpack(column)
    return found


def _stretches(ascending: npt.NDArray[np.uint16]) -> Iterator[tuple[int, int, int]]:
    """Yield each value with the first place where it stands and the place after its last."""
    edges = np.flatnonzero(np.diff(ascending.astype(np.int32), prepend=-1, append=-1))
    for first, stop in pairwise(edges.tolist()):
        yield int(ascending[first]), first, stop


def _sorted_events(columns: dict[str, npt.NDArray[Any]], chosen: npt.NDArray[Any]) -> GroupEvents:
    chosen = chosen[np.argsort(columns["order"][chosen])]
    order = columns["order"][chosen]
    same = np.append(order[1:] == order[:-1], False)
    same[1:] |= same[:-1].copy()
    return GroupEvents(
        order,
        columns["value"][chosen],
        columns["unit"][chosen],
        columns["text"][chosen],
        np.flatnonzero(same),
    )


def _path(folder: Path, part: int) -> Path:
    return folder / f"{part}.events"


_SUBJECTS: Final = """
CREATE OR REPLACE TEMP TABLE staged_subject AS
SELECT subject_id, min(row_id) AS place, epoch_us(min(index_time)) AS first_us,
  epoch_us(max(index_time)) AS last_us
FROM index_rows GROUP BY subject_id
"""
_ROWS: Final = """
SELECT r.row_id, s.place, epoch_us(r.index_time) AS index_us
FROM index_rows r JOIN staged_subject s USING (subject_id)
"""
_EVENTS: Final = """
SELECT (s.place // $patients)::USMALLINT AS part, c.code_group,
  s.place % $patients * $span + coalesce(epoch_us(e.time) - $first, 0) AS event_order,
  coalesce(e.numeric_value, 'nan'::DOUBLE) AS value, e.unit,
  CASE WHEN c.has_levels THEN e.text_value END AS text_value
FROM events e
JOIN staged_code c ON c.code = e.code
JOIN staged_subject s ON s.subject_id = e.subject_id
WHERE coalesce(epoch_us(e.time), s.last_us) BETWEEN s.first_us - c.reach + 1 AND s.last_us
"""
