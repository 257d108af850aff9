"""What is counted of a plan's rows and of how they came about; for the steward alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from site_client.features.event_patients import EventPatients
from site_client.features.extraction import VariableCounts
from site_client.features.index_dates import Attrition
from site_client.sources.events import SourceCounts
from site_client.sources.table import FeatureCounts


@dataclass(frozen=True)
class RowCounts:
    """Counts of rows and of how they came about; each is a sum over patients.

    Args:
        rows, patients, positive: with and without, and with the outcome.
        attrition: after each step.
        source: what the reader met.
        features: per feature, of the rows.
        variables: per feature but age, of the events in its windows.
    """

    rows: int
    patients: int
    positive: int
    attrition: tuple[Attrition, ...]
    source: SourceCounts
    features: Mapping[str, FeatureCounts]
    variables: Mapping[str, VariableCounts]


def counts_of(events: EventPatients) -> RowCounts:
    """Return the counts of rows that were read."""
    return RowCounts(
        rows=events.table.rows,
        patients=events.table.patients,
        positive=int(events.table.label.sum(dtype="f8")),
        attrition=events.attrition,
        source=events.source,
        features=events.table.counts,
        variables=events.variables,
    )
