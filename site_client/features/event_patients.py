"""From a source of events to the plan's table of rows: what a table source gives ready-made.

Steps: (1) the source writes its event table; (2) index dates, ages, criteria and the label; (3) the
age of each row; (4) every other variable in one pass;
(5) the table of rows that features, quality and training read, whatever the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.errors import PlanError
from common.study.cohort import AGE
from common.study.columns import bins_of_feature
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.units.conversions import conversion
from site_client.features.definitions import Variable
from site_client.features.event_inspection import EventInspection, inspect_events
from site_client.features.extraction import VariableCounts, extract_staged
from site_client.features.from_plan import (
    Narrower,
    criteria_of,
    index_event_of,
    outcome_of,
    variable_of,
)
from site_client.features.index_dates import Attrition, make_index_rows
from site_client.features.prefix_codes import asked_of_source, has_stars, narrower_of_plan
from site_client.features.staged_events import stage_events
from site_client.features.wanted_codes import put_codes
from site_client.sources.events import BIRTH, DEATH, EventSource, SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.source_files import hide_database_text, run_sql
from site_client.sources.table import MISSING_LEVEL, FeatureCounts, PatientTable

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class EventPatients:
    """A plan's rows from events, and how they came about; all counts are for the steward alone.

    Args:
        table: rows as a table source gives them.
        attrition: rows and patients left after each step.
        source: what the reader met.
        variables: per feature, what was met in its window; age has none.
        asked: per feature, its codes and how units become the plan's; age has none.
        index_time: datetime64 [rows], the site's wall clock.
        inspection: of the events behind the rows; None unless it was asked for.
    """

    table: PatientTable
    attrition: tuple[Attrition, ...]
    source: SourceCounts
    variables: Mapping[str, VariableCounts]
    asked: Mapping[str, Variable]
    index_time: npt.NDArray[np.datetime64]
    inspection: EventInspection | None = None


@hide_database_text("the events")
def read_event_patients(
    plan: StudyPlan, source: EventSource, *, scratch: Path, is_inspected: bool = False
) -> EventPatients:
    """Read a source of events for one plan.

    Args:
        plan: must say from which events index dates are made.
        source: of the site.
        scratch: a folder of this build alone.
        is_inspected: whether to look into the events for a steward as well.

    Raises:
        PlanError: the plan has no index date, or a unit that is none.
        DataSourceError: from the reader.
    """
    index = plan.cohort.index_date
    if index is None:
        raise PlanError(
            "the plan does not say when a patient's row begins",
            expected="[cohort.index_date] with the codes of the entry event",
            arrived="a plan for tables that have one row for each index date",
            todo="add [cohort.index_date] to the plan, or read a table at this site",
        )
    known = source.descendants(asked_of_source(plan))
    # Who was seen when is a question about all events, and so is what begins like a code.
    asks_for_all = index.observed_days_min > 0 or plan.label.follow_up == "required"
    wanted = None
    if not (asks_for_all or has_stars(plan)):
        wanted = frozenset({BIRTH, DEATH}).union(*known.values())
    with open_local(scratch=scratch) as connection:
        counts = source.write_events(connection, "events", scratch=scratch, codes=wanted)
        narrower = narrower_of_plan(plan, known, connection)
        attrition = make_index_rows(
            connection,
            index=index_event_of(
                index,
                narrower,
                ages=(plan.cohort.age_years_min, plan.cohort.age_years_max),
            ),
            criteria=criteria_of(plan, narrower),
            outcome=outcome_of(plan.label, narrower, lambda codes: _units_of(connection, codes)),
        )
        _add_ages(connection)
        patients = _read_rows(connection, plan, narrower, tuple(attrition), counts)
        if not is_inspected:
            return patients
        return replace(patients, inspection=inspect_events(connection, plan, narrower))


def _read_rows(
    connection: duckdb.DuckDBPyConnection,
    plan: StudyPlan,
    narrower: Narrower,
    attrition: tuple[Attrition, ...],
    counts: SourceCounts,
) -> EventPatients:
    columns: dict[str, npt.NDArray[np.float64]] = {}
    met: dict[str, VariableCounts] = {}
    others = [feature for feature in plan.features if AGE not in feature.codes]
    asked = [variable_of(item, narrower, lambda _: ()) for item in others]
    with stage_events(connection, asked) as staged:
        variables: dict[str, Variable] = {}
        for bins in sorted({bins_of_feature(feature) for feature in others}):
            alike = [feature for feature in others if bins_of_feature(feature) == bins]
            known = [variable_of(item, narrower, staged.units_of) for item in alike]
            extraction = extract_staged(staged, known, bins=bins)
            for place, feature in enumerate(alike):
                values = extraction.values[:, :, place]
                columns[feature.name] = values if bins > 1 else values[:, 0]
                met[feature.name] = extraction.counts[place]
                variables[feature.name] = known[place]
    found = connection.execute(
        "SELECT subject_id::VARCHAR AS subject_id, index_time, label, age_days, age_years "
        "FROM index_rows ORDER BY row_id"
    ).fetchnumpy()
    rows = {name: np.asarray(column) for name, column in found.items()}
    numeric: dict[str, npt.NDArray[np.float64]] = {}
    levels: dict[str, npt.NDArray[np.int64]] = {}
    feature_counts: dict[str, FeatureCounts] = {}
    for feature in plan.features:
        if isinstance(feature, CategoricalFeature):
            column = columns[feature.name]
            levels[feature.name] = np.where(np.isnan(column), MISSING_LEVEL, column).astype(
                np.int64
            )
        else:
            is_age = AGE in feature.codes
            column = _ages(feature, rows) if is_age else columns[feature.name]
            numeric[feature.name] = column
        nothing = np.isnan(column)
        missing = int((nothing if nothing.ndim == 1 else nothing.all(axis=1)).sum())
        outside = met[feature.name].implausible if feature.name in met else 0
        feature_counts[feature.name] = FeatureCounts(len(column) - missing, missing, outside)
    table = PatientTable(
        subject_ids=tuple(rows["subject_id"].tolist()),
        numeric=numeric,
        levels=levels,
        label=np.asarray(rows["label"], dtype=np.float32),
        counts=feature_counts,
        unlabelled=0,
    )
    return EventPatients(
        table,
        attrition,
        counts,
        met,
        variables,
        rows["index_time"].astype("datetime64[us]"),
    )


def _add_ages(connection: duckdb.DuckDBPyConnection) -> None:
    """Add each row's age at its index date."""
    connection.execute(
        "CREATE OR REPLACE TABLE index_rows AS SELECT r.*, "
        "(epoch_us(r.index_time) - epoch_us(b.born)) / 86400e6 AS age_days, "
        "date_sub('year', b.born, r.index_time) AS age_years "
        "FROM index_rows r LEFT JOIN (SELECT subject_id, min(time) AS born FROM cohort_event "
        "WHERE code = $birth GROUP BY subject_id) b USING (subject_id)",
        {"birth": BIRTH},
    )


def _ages(
    feature: NumericFeature, rows: Mapping[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """Return ages in the feature's unit; in years, completed ones."""
    if feature.unit == "a":
        ages = rows["age_years"].astype(np.float64)
    else:
        change = conversion("d", feature.unit, analyte=None)
        ages = rows["age_days"] * change.factor + change.offset
    low, high = feature.plausible_range
    return np.where((ages >= low) & (ages <= high), ages, np.nan)


def _units_of(connection: duckdb.DuckDBPyConnection, codes: frozenset[str]) -> list[str | None]:
    put_codes(connection, "unit_code", codes)
    found = run_sql(
        connection,
        "SELECT DISTINCT unit FROM events WHERE code IN (SELECT code FROM unit_code) "
        "AND numeric_value IS NOT NULL ORDER BY unit",
        place="the source's events",
    )
    return [unit for (unit,) in found]
