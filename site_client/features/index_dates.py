"""Index dates: from entry events, through criteria, to labelled rows, with a count of who is left.

Steps, in this order, each with the rows and patients that remain after it:
(1) entry events with a time, moved by the delay; (2) observed long enough before; (3) not dead at
the index date; (4) of the ages asked for; (5) each criterion; (6) the occurrence asked for, and at
most `rows_max` a patient; (7) labelled: the outcome happened, or the patient was followed to the
window's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from site_client.features.definitions import Criterion, IndexEvent, Outcome
from site_client.features.wanted_codes import microseconds, put_codes, put_conversions
from site_client.sources.events import BIRTH, DEATH
from site_client.sources.source_files import run_sql

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Attrition:
    """What one step left; exact counts, for the steward alone.

    Args:
        step: in words.
        rows: index dates that remain.
        patients: who remain.
    """

    step: str
    rows: int
    patients: int


def make_index_rows(
    connection: duckdb.DuckDBPyConnection,
    *,
    index: IndexEvent,
    criteria: Sequence[Criterion],
    outcome: Outcome,
) -> list[Attrition]:
    """Make the table `index_rows` and return what each step left.

    Its columns: row_id BIGINT from 0, subject_id as in `events`, index_time TIMESTAMP, label
    BOOLEAN. The events that decided, births and deaths among them, stay in `cohort_event`.

    Args:
        connection: which has the event table `events`.
        index: entry event.
        criteria: inclusion and exclusion.
        outcome: label.

    Raises:
        DataSourceError: when a source's file, read in place, turns out to be damaged.
    """
    selection = _Selection(connection)
    selection.read_events(
        index.codes.union(outcome.codes, *(criterion.codes for criterion in criteria)),
        with_values=outcome.above is not None or outcome.below is not None,
    )
    if index.observed or outcome.followed:
        selection.read_spans()
    left = [selection.enter(index)]
    if index.observed:
        left.append(selection.keep_observed(index))
    left.append(selection.keep_living())
    if index.ages is not None:
        left.append(selection.keep_ages(*index.ages))
    for number, criterion in enumerate(criteria, start=1):
        left.append(selection.keep_meeting(criterion, number))
    left.append(selection.keep_occurrences(index))
    left.append(selection.label(outcome))
    connection.execute(
        "CREATE OR REPLACE TABLE index_rows AS SELECT row_number() OVER "
        "(ORDER BY subject_id::VARCHAR, index_time) - 1 AS row_id, subject_id, index_time, label "
        "FROM candidate"
    )
    return left


_COHORT_VALUES: Final = """
CREATE OR REPLACE TEMP TABLE cohort_event AS
SELECT e.subject_id, e.time, e.code, e.numeric_value, e.unit
FROM events e JOIN cohort_code c ON c.code = e.code
"""
# A column that nobody asks for is not read from the files.
_COHORT: Final = """
CREATE OR REPLACE TEMP TABLE cohort_event AS
SELECT e.subject_id, e.time, e.code, NULL::DOUBLE AS numeric_value, NULL::VARCHAR AS unit
FROM events e JOIN cohort_code c ON c.code = e.code
"""


@dataclass(frozen=True)
class _Selection:
    """The table `candidate` (subject_id, index_time, later label), step by step."""

    connection: duckdb.DuckDBPyConnection

    def read_events(self, codes: frozenset[str], *, with_values: bool) -> None:
        """Make `cohort_event` of the codes that decide, so that `events` is read only once."""
        put_codes(self.connection, "cohort_code", codes | {BIRTH, DEATH})
        query = _COHORT_VALUES if with_values else _COHORT
        run_sql(self.connection, query, place="the source's events")

    def read_spans(self) -> None:
        """Make `seen`: each patient's first moment that is no birth, and the last of any kind."""
        run_sql(
            self.connection,
            "CREATE OR REPLACE TEMP TABLE seen AS SELECT subject_id, "
            "min(time) FILTER (code <> ?) AS first, max(time) AS last FROM events "
            "GROUP BY subject_id",
            place="the source's events",
            parameters=[BIRTH],
        )

    def enter(self, index: IndexEvent) -> Attrition:
        put_codes(self.connection, "entry_code", index.codes)
        self._keep(
            "SELECT DISTINCT subject_id, time + to_microseconds($delay) AS index_time "
            "FROM cohort_event "
            "WHERE time IS NOT NULL AND code IN (SELECT code FROM entry_code)",
            delay=microseconds(index.delay),
        )
        return self._counted("entry events")

    def keep_observed(self, index: IndexEvent) -> Attrition:
        # A birth is no observation: it is known of everybody.
        self._keep(
            "SELECT c.* FROM candidate c JOIN seen USING (subject_id) "
            "WHERE seen.first <= c.index_time - to_microseconds($observed)",
            observed=microseconds(index.observed),
        )
        return self._counted("observed long enough before the index date")

    def keep_living(self) -> Attrition:
        self._keep(
            "SELECT c.* FROM candidate c LEFT JOIN (SELECT subject_id, min(time) AS died "
            "FROM cohort_event WHERE code = $death GROUP BY subject_id) d USING (subject_id) "
            "WHERE d.died IS NULL OR d.died > c.index_time",
            death=DEATH,
        )
        return self._counted("alive at the index date")

    def keep_ages(self, youngest: int, oldest: int) -> Attrition:
        self._keep(
            "SELECT c.* FROM candidate c JOIN (SELECT subject_id, min(time) AS born "
            "FROM cohort_event WHERE code = $birth GROUP BY subject_id) b USING (subject_id) "
            "WHERE date_sub('year', b.born, c.index_time) BETWEEN $youngest AND $oldest",
            birth=BIRTH,
            youngest=youngest,
            oldest=oldest,
        )
        return self._counted("of the plan's ages")

    def keep_meeting(self, criterion: Criterion, number: int) -> Attrition:
        put_codes(self.connection, "criterion_code", criterion.codes)
        self._keep(
            "SELECT * FROM candidate WHERE ((subject_id, index_time) IN ("
            "SELECT c.subject_id, c.index_time FROM candidate c JOIN cohort_event e "
            "ON e.subject_id = c.subject_id AND e.time > c.index_time - to_microseconds($begins) "
            "AND e.time <= c.index_time - to_microseconds($ends) "
            "WHERE e.code IN (SELECT code FROM criterion_code) "
            "GROUP BY c.subject_id, c.index_time HAVING count(*) >= $count_min)) <> $excludes",
            begins=microseconds(criterion.window.begins),
            ends=microseconds(criterion.window.ends),
            count_min=criterion.count_min,
            excludes=criterion.excludes,
        )
        return self._counted(f"criterion {number}")

    def keep_occurrences(self, index: IndexEvent) -> Attrition:
        most = index.rows_max if index.occurrence == "every" else 1
        self._keep(
            "SELECT * FROM candidate QUALIFY row_number() OVER (PARTITION BY subject_id "
            "ORDER BY epoch_us(index_time) * $direction) <= $most",
            direction=-1 if index.occurrence == "last" else 1,
            most=most,
        )
        if index.occurrence == "every":
            return self._counted("every entry event of each patient")
        return self._counted(f"the {index.occurrence} of each patient")

    def label(self, outcome: Outcome) -> Attrition:
        put_codes(self.connection, "outcome_code", outcome.codes)
        put_conversions(self.connection, "outcome_unit", outcome.conversions)
        self._keep(
            "WITH met AS (SELECT e.subject_id, e.time, e.numeric_value * u.factor + u.shift AS v "
            "FROM cohort_event e LEFT JOIN outcome_unit u ON coalesce(e.unit, '') = u.unit "
            "WHERE e.code IN (SELECT code FROM outcome_code)) "
            "SELECT *, (subject_id, index_time) IN (SELECT c.subject_id, c.index_time "
            "FROM candidate c JOIN met m ON m.subject_id = c.subject_id "
            "AND m.time > c.index_time + to_microseconds($gap) "
            "AND m.time <= c.index_time + to_microseconds($horizon) "
            "AND ($above::DOUBLE IS NULL OR m.v > $above::DOUBLE) "
            "AND ($below::DOUBLE IS NULL OR m.v < $below::DOUBLE)) AS label FROM candidate",
            gap=microseconds(outcome.gap),
            horizon=microseconds(outcome.horizon),
            above=outcome.above,
            below=outcome.below,
        )
        if outcome.followed:
            self._keep(
                "SELECT c.* FROM candidate c LEFT JOIN seen USING (subject_id) "
                "WHERE c.label OR c.subject_id IN "
                "(SELECT subject_id FROM cohort_event WHERE code = $death) "
                "OR seen.last >= c.index_time + to_microseconds($horizon)",
                death=DEATH,
                horizon=microseconds(outcome.horizon),
            )
        return self._counted("with a known outcome")

    def _keep(self, query: str, **parameters: object) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS {query}", parameters)
        self.connection.execute("DROP TABLE IF EXISTS candidate")
        self.connection.execute("ALTER TABLE kept RENAME TO candidate")

    def _counted(self, step: str) -> Attrition:
        [(rows, patients)] = self.connection.execute(
            "SELECT count(*), count(DISTINCT subject_id) FROM candidate"
        ).fetchall()
        return Attrition(step, rows, patients)
