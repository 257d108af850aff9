"""A plan's rows from whatever a site has: one table, or a source of events."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import limits
from common.errors import DataSourceError
from common.study.plan import StudyPlan
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.row_counts import RowCounts, counts_of
from site_client.sources.open_source import open_source
from site_client.sources.source_mapping import SourceMapping
from site_client.sources.table import TOO_FEW, PatientTable, read_table, too_few_patients
from site_client.sources.table_mapping import TableMapping


@dataclass(frozen=True)
class SiteRows:
    """Rows that fit the plan.

    Args:
        table: one row for each index date.
        events: how they came about; None for a table, whose rows are ready-made.
    """

    table: PatientTable
    events: EventPatients | None


def read_rows(
    plan: StudyPlan,
    mapping: SourceMapping,
    *,
    folder: Path,
    scratch: Path,
    patients_min: int = 0,
    is_monitored: bool = False,
) -> SiteRows:
    """Read a site's source for one plan and check the rows against it.

    Args:
        plan: to be followed.
        mapping: `[source]` of `site.toml`.
        folder: where `site.toml` lies; a relative path starts there.
        scratch: a folder of the agent's own; what a build puts there is deleted with it.
        patients_min, is_monitored: see `check_rows` and `read_table`.

    Raises:
        PlanError: the plan has no index date, and the source no rows of its own.
        DataSourceError: the data do not fit the plan; never with a value.
    """
    if isinstance(mapping, TableMapping):
        table = read_table(
            plan, mapping, folder=folder, patients_min=patients_min, is_monitored=is_monitored
        )
        return SiteRows(table, None)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = open_source(mapping, folder=folder)
    with tempfile.TemporaryDirectory(prefix="build-", dir=scratch) as build:
        events = read_event_patients(plan, source, scratch=Path(build))
    check_rows(plan, counts_of(events), patients_min=patients_min, is_monitored=is_monitored)
    return SiteRows(events.table, events)


def check_rows(
    plan: StudyPlan, counts: RowCounts, *, patients_min: int = 0, is_monitored: bool = False
) -> None:
    """Refuse rows of events that do not fit the plan, as a table's are refused while it is read.

    Args:
        plan: to be followed.
        counts: of the rows.
        patients_min: of fewer nothing is asked but their number: a refusal must not tell more of
            few patients than that they are few.
        is_monitored: believe a unit that is probably wrong: a report is there to show the change.

    Raises:
        DataSourceError: no row is left, or of too few patients; a feature that may not be missing
            is; or so many values are implausible that the unit must be another one.
    """
    rows = counts.rows
    if rows == 0:
        steps = "; ".join(f"{step.step}: {step.patients}" for step in counts.attrition)
        left_out = sorted(counts.source.excluded.items(), key=lambda item: -item[1])
        reasons = "; ".join(f"{times:,} for {reason.value}" for reason, times in left_out) or "none"
        raise DataSourceError(
            "no patient of this source is in the plan's cohort",
            expected="at least one row after every step",
            arrived=f"patients left after each step: {steps}. Records left out: {reasons}",
            todo="compare the codes of the step that leaves none with what the site records; data "
            "with times in the future need `data_until` under [source]",
            number=TOO_FEW,
        )
    if counts.patients < patients_min:
        raise too_few_patients()
    for feature in plan.features:
        recorded = counts.features[feature.name].recorded
        if feature.missing == "none_allowed" and recorded < rows:
            raise DataSourceError(
                f"the feature {feature.name} has no usable value in {rows - recorded} of "
                f"{rows} rows",
                expected="a value in every row, for the plan says none_allowed",
                arrived="rows without one",
                todo="ask for a plan with an indicator, or with a [[cohort.require]] of its codes",
            )
        met = counts.variables.get(feature.name)
        if met is None or is_monitored:
            continue
        present = met.used + met.implausible
        if met.implausible > limits.OUT_OF_RANGE_FRACTION_MAX * present:
            raise DataSourceError(
                f"too many values of {feature.name} are outside the plausible range",
                expected=f"at most {limits.OUT_OF_RANGE_FRACTION_MAX:.0%} of its values outside",
                arrived=f"{met.implausible} of {present}; the unit is probably another one",
                todo="check the unit that the source states for these codes",
            )
