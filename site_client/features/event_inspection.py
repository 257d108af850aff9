"""What a steward should know of the events behind a plan's rows: units, texts, codes, index dates.

Asked by `check` alone, beside the extraction and not in it: training never pays for it. Counts are
exact and stay at the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from common.study.cohort import AGE
from common.study.cohort_rules import UNIT_OF_AGGREGATE
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.units.conversions import LeftOut, unit_table
from site_client.features.from_plan import Narrower, all_codes
from site_client.features.wanted_codes import put_codes, put_table

if TYPE_CHECKING:
    import duckdb

_DAY_US: Final = 86_400_000_000

NAMED_PATIENTS_MIN: Final = 10
"""Free text of fewer patients is repeated to nobody: it may be about one of them."""
UNNAMED: Final = "(not repeated: no known unit, and of few patients)"


@dataclass(frozen=True)
class UnitMet:
    """One unit in which values of a feature were recorded, within its windows.

    Args:
        unit: as recorded; None where none was; `UNNAMED` where it is no known unit and few have it.
        values: a value in the windows of two rows counts twice.
        patients: with such a value.
        median: in the plan's unit; None where the unit is left out.
        is_converted: another scale than the plan's.
        left_out: why its values are not used; None: they are.
    """

    unit: str | None
    values: int
    patients: int
    median: float | None
    is_converted: bool
    left_out: LeftOut | None


@dataclass(frozen=True)
class TextMet:
    """Recorded texts of a categorical feature that are none of the plan's levels.

    Args:
        text: one that at least `NAMED_PATIENTS_MIN` patients have; None: all others together.
        values: events in the windows.
        patients: with such an event.
    """

    text: str | None
    values: int
    patients: int


@dataclass(frozen=True)
class EventInspection:
    """What was found in the events of the plan's rows.

    Args:
        index_times: datetime64[us] [rows], wall clock of the site.
        units: per numeric feature whose number matters, the most frequent first.
        other_texts: per categorical feature, the most frequent first.
        outcome_codes: per feature that shares codes with the outcome, how many rows have an event
            of a shared code in the feature's window.
        outcome_at_index: rows with an outcome's code at exactly the index time.
    """

    index_times: npt.NDArray[np.datetime64]
    units: Mapping[str, tuple[UnitMet, ...]]
    other_texts: Mapping[str, tuple[TextMet, ...]]
    outcome_codes: Mapping[str, int]
    outcome_at_index: int


def inspect_events(
    connection: duckdb.DuckDBPyConnection, plan: StudyPlan, narrower: Narrower
) -> EventInspection:
    """Return what a steward should know of `events` around `index_rows`, two tables there.

    Args:
        connection: with both tables, the rows final.
        plan: the features, their windows and the label.
        narrower: the source's `descendants`.
    """
    asked = [item for item in plan.features if AGE not in item.codes]
    outcome = all_codes(plan.label.codes, narrower)
    codes = {item.name: all_codes(item.codes, narrower) for item in asked}
    _put_windows(connection, asked, codes)
    put_codes(connection, "inspected_outcome", outcome)
    connection.execute(_EVENTS)
    numbers = [
        item
        for item in asked
        if isinstance(item, NumericFeature) and item.aggregate not in UNIT_OF_AGGREGATE
    ]
    [times] = (
        connection.execute("SELECT index_time FROM index_rows ORDER BY row_id")
        .fetchnumpy()
        .values()
    )
    [(at_index,)] = connection.execute(_AT_INDEX).fetchall()
    shared = dict(connection.execute(_SHARED).fetchall())
    return EventInspection(
        index_times=np.asarray(times, dtype="datetime64[us]"),
        units=_units(connection, numbers),
        other_texts=_texts(connection, asked),
        outcome_codes={
            item.name: int(shared.get(item.name, 0)) for item in asked if codes[item.name] & outcome
        },
        outcome_at_index=int(at_index),
    )


def _put_windows(
    connection: duckdb.DuckDBPyConnection,
    asked: Sequence[NumericFeature | CategoricalFeature],
    codes: Mapping[str, frozenset[str]],
) -> None:
    rows = [
        (item.name, code, item.window_days * _DAY_US)
        for item in asked
        for code in sorted(codes[item.name])
    ]
    put_table(
        connection,
        "inspected",
        {
            "feature": ("VARCHAR", [row[0] for row in rows]),
            "code": ("VARCHAR", [row[1] for row in rows]),
            "begins": ("BIGINT", [row[2] for row in rows]),
        },
    )
    levels = [
        (item.name, level)
        for item in asked
        if isinstance(item, CategoricalFeature)
        for level in item.levels
    ]
    put_table(
        connection,
        "inspected_level",
        {
            "feature": ("VARCHAR", [row[0] for row in levels]),
            "level": ("VARCHAR", [row[1] for row in levels]),
        },
    )


def _units(
    connection: duckdb.DuckDBPyConnection, features: Sequence[NumericFeature]
) -> dict[str, tuple[UnitMet, ...]]:
    found: dict[str, list[tuple[str | None, int, int, float]]] = {}
    for name, unit, values, patients, median in connection.execute(_UNITS).fetchall():
        found.setdefault(name, []).append((unit, values, patients, median))
    met: dict[str, tuple[UnitMet, ...]] = {}
    for feature in features:
        rows = found.get(feature.name, [])
        decisions = unit_table(
            [row[0] for row in rows],
            feature.unit,
            analyte=feature.analyte,
            assume=feature.unit_if_missing,
        )
        units = []
        for (unit, values, patients, median), decision in zip(rows, decisions, strict=True):
            change = decision.conversion
            is_free_text = decision.reason is LeftOut.UNKNOWN and patients < NAMED_PATIENTS_MIN
            units.append(
                UnitMet(
                    unit=UNNAMED if is_free_text else unit,
                    values=values,
                    patients=patients,
                    median=None if change is None else median * change.factor + change.offset,
                    is_converted=change is not None and (change.factor, change.offset) != (1, 0),
                    left_out=decision.reason,
                )
            )
        met[feature.name] = tuple(units)
    return met


def _texts(
    connection: duckdb.DuckDBPyConnection,
    features: Sequence[NumericFeature | CategoricalFeature],
) -> dict[str, tuple[TextMet, ...]]:
    found: dict[str, list[TextMet]] = {
        item.name: [] for item in features if isinstance(item, CategoricalFeature)
    }
    for name, text, values, patients in connection.execute(
        _TEXTS, {"patients_min": NAMED_PATIENTS_MIN}
    ).fetchall():
        found[name].append(TextMet(text, values, patients))
    return {name: tuple(texts) for name, texts in found.items()}


# The source may be files: it is read once.
_EVENTS = """
CREATE OR REPLACE TEMP TABLE inspected_event AS SELECT * FROM events
WHERE code IN (SELECT code FROM inspected UNION SELECT code FROM inspected_outcome)
  AND subject_id IN (SELECT subject_id FROM index_rows)
"""
# The same window as a feature's: after its beginning, up to the index date and never later.
_IN_WINDOW = """
FROM inspected_event e JOIN inspected f ON f.code = e.code
JOIN index_rows i ON i.subject_id = e.subject_id
WHERE (e.time > i.index_time - to_microseconds(f.begins) AND e.time <= i.index_time)
"""
_UNITS = f"""
SELECT f.feature, nullif(e.unit, '') AS unit, count(*), count(DISTINCT e.subject_id),
  median(e.numeric_value) {_IN_WINDOW} AND e.numeric_value IS NOT NULL
GROUP BY ALL ORDER BY f.feature, count(*) DESC, unit
"""
_TEXTS = """
WITH met AS (
  SELECT f.feature, e.text_value, e.subject_id
  FROM inspected_event e JOIN inspected f ON f.code = e.code
  JOIN index_rows i ON i.subject_id = e.subject_id
  LEFT JOIN inspected_level l ON l.feature = f.feature AND l.level = e.text_value
  WHERE l.level IS NULL AND f.feature IN (SELECT feature FROM inspected_level)
    AND (e.time IS NULL
      OR (e.time > i.index_time - to_microseconds(f.begins) AND e.time <= i.index_time))
), named AS (
  SELECT feature, text_value FROM met GROUP BY ALL
  HAVING count(DISTINCT subject_id) >= $patients_min
)
SELECT m.feature, n.text_value, count(*), count(DISTINCT m.subject_id)
FROM met m LEFT JOIN named n ON n.feature = m.feature AND n.text_value = m.text_value
GROUP BY ALL ORDER BY m.feature, count(*) DESC, n.text_value
"""
_SHARED = f"""
SELECT f.feature, count(DISTINCT i.row_id) {_IN_WINDOW}
  AND e.code IN (SELECT code FROM inspected_outcome) GROUP BY f.feature
"""  # noqa: S608 - made of constants
_AT_INDEX = """
SELECT count(DISTINCT i.row_id) FROM inspected_event e
JOIN index_rows i ON i.subject_id = e.subject_id AND i.index_time = e.time
WHERE e.code IN (SELECT code FROM inspected_outcome)
"""
