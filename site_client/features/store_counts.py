"""Counts of rows as the fields of an entry of the store, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from site_client.features.definitions import NumericVariable, Variable
from site_client.features.extraction import VariableCounts
from site_client.features.index_dates import Attrition
from site_client.features.row_counts import RowCounts
from site_client.features.store_entry import (
    FeatureEntry,
    FeatureRecord,
    NamedCount,
    StepCount,
    UsedUnit,
)
from site_client.sources.events import Exclusion, SourceCounts
from site_client.sources.table import FeatureCounts


def counts_in(entry: FeatureEntry) -> RowCounts:
    """Return the counts that an entry records."""
    return RowCounts(
        rows=entry.rows,
        patients=entry.patients,
        positive=entry.positive,
        attrition=tuple(Attrition(item.step, item.rows, item.patients) for item in entry.attrition),
        source=SourceCounts(
            records={item.name: item.count for item in entry.records},
            excluded={Exclusion[item.name]: item.count for item in entry.excluded},
            unmapped={item.name: item.count for item in entry.unmapped},
        ),
        features={
            item.name: FeatureCounts(item.recorded, item.missing, item.out_of_range, item.unmapped)
            for item in entry.features
        },
        variables={
            item.name: VariableCounts(item.used, item.no_value, item.other_unit, item.implausible)
            for item in entry.features
            if item.codes
        },
    )


def counts_record(
    counts: RowCounts, asked: Mapping[str, Variable], *, base: FeatureEntry | None
) -> dict[str, Any]:
    """Return counts as the fields of an entry.

    Args:
        counts: of the whole source.
        asked: per feature, its codes and the units met.
        base: an entry whose units were met as well.
    """
    known = {item.name: item for item in base.features} if base else {}
    return {
        "rows": counts.rows,
        "patients": counts.patients,
        "positive": counts.positive,
        "attrition": [
            StepCount(step=item.step, rows=item.rows, patients=item.patients)
            for item in counts.attrition
        ],
        "records": _named(counts.source.records),
        "excluded": _named({why.name: n for why, n in counts.source.excluded.items()}),
        "unmapped": _named(counts.source.unmapped),
        "features": [
            FeatureRecord(
                name=name,
                codes=max(
                    len(asked[name].codes) if name in asked else 0,
                    known[name].codes if name in known else 0,
                ),
                units=_units(asked.get(name), known[name].units if name in known else []),
                **vars(item),
                **vars(counts.variables.get(name, VariableCounts())),
            )
            for name, item in counts.features.items()
        ],
    }


def _named(counts: Mapping[str, int]) -> list[NamedCount]:
    return [NamedCount(name=name, count=count) for name, count in sorted(counts.items())]


def _units(variable: Variable | None, known: Sequence[UsedUnit]) -> list[UsedUnit]:
    units = {item.unit: item for item in known}
    if isinstance(variable, NumericVariable) and variable.conversions is not None:
        for unit, item in variable.conversions.items():
            found = UsedUnit(unit=unit, factor=repr(item.factor), offset=repr(item.offset))
            units.setdefault(unit, found)
    return [units[unit] for unit in sorted(units)]
