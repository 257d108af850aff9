"""Rows of a source that grew: those of touched patients made anew, all others kept to the bit.

A row depends on its patient's events alone, so untouched patients' rows are what they were. Counts
are sums over patients: what the touched ones had is taken off, what they have now is put on.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import compute

from common.study.plan import StudyPlan
from site_client.features.definitions import Variable
from site_client.features.event_patients import read_event_patients
from site_client.features.extraction import VariableCounts
from site_client.features.index_dates import Attrition
from site_client.features.row_counts import RowCounts, counts_of
from site_client.features.store_rows import rows_to_arrow
from site_client.sources.events import SourceCounts
from site_client.sources.meds_growth import MedsGrowth
from site_client.sources.table import FeatureCounts

KeyT = TypeVar("KeyT")

ROWS: Final = "rows"
DELTA: Final = "delta"
REPLACED: Final = "replaced"


@dataclass(frozen=True)
class Grown:
    """What an increment came to.

    Args:
        tables: what the entry has besides the rows of its base, see `whole_rows`; or the rows.
        counts: of the whole source, with no rows beside them.
        asked: per feature, its codes and units met in the touched patients.
    """

    tables: dict[str, pa.Table]
    counts: RowCounts
    asked: Mapping[str, Variable]


def grow(
    plan: StudyPlan,
    base: Mapping[str, pa.Table],
    counts: RowCounts,
    growth: MedsGrowth,
    *,
    scratch: Path,
) -> Grown:
    """Return what a full build makes of the whole source as it is now.

    The list of codes without a standard one may differ in its rarest entries.

    Args:
        plan: of the base.
        base: tables of the entry before but its rows, which are read only when needed.
        counts: of the base.
        growth: since then.
        scratch: a folder of this build.

    Raises:
        DataSourceError: from the reader.
    """
    with ThreadPoolExecutor(1) as pool:  # a pass over few events leaves a core idle
        off = pool.submit(
            read_event_patients, plan, growth.before, scratch=_inside(scratch, "before")
        )
        now = read_event_patients(plan, growth.now, scratch=_inside(scratch, "now"))
        before = counts_of(off.result())
    fresh = rows_to_arrow(now.table, now.index_time)
    patients = pa.array(growth.patients, pa.string())
    if DELTA in base:
        fresh = _merged(base[DELTA], fresh, patients)
        patients = compute.unique(
            pa.concat_arrays([patients, base[REPLACED].column("subject_id").combine_chunks()])
        )
    return Grown(
        tables={
            DELTA: fresh,
            REPLACED: pa.table(
                {"subject_id": compute.take(patients, compute.sort_indices(patients))}
            ),
        },
        counts=_changed(counts, before, counts_of(now)),
        asked=now.asked,
    )


def whole_rows(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Return an entry's rows in the order of a full build.

    Args:
        tables: `rows`; after an increment also `delta`, rows made since, and `replaced`, the
            patients whose rows in `rows` no longer hold.
    """
    if DELTA not in tables:
        return tables[ROWS].combine_chunks()
    replaced = tables[REPLACED].column("subject_id").combine_chunks()
    return _merged(tables[ROWS], tables[DELTA], replaced)


def _inside(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir(mode=0o700)
    return folder


def _merged(base: pa.Table, fresh: pa.Table, replaced: pa.Array) -> pa.Table:
    """Return the rows of both in their order, that of the patient's name; no patient is in both."""
    names = base.column("subject_id").combine_chunks()
    is_kept = compute.invert(compute.is_in(names, value_set=replaced))
    kept = np.flatnonzero(is_kept.to_numpy(zero_copy_only=False))
    kept_names = np.asarray(names.take(pa.array(kept)).to_pylist(), dtype=np.str_)
    fresh_names = np.asarray(fresh.column("subject_id").to_pylist(), dtype=np.str_)
    places = np.searchsorted(kept_names, fresh_names)
    order = np.insert(kept, places, np.arange(len(base), len(base) + len(fresh)))
    return pa.concat_tables([base, fresh]).take(pa.array(order)).combine_chunks()


def _changed(was: RowCounts, off: RowCounts, on: RowCounts) -> RowCounts:
    return RowCounts(
        rows=was.rows - off.rows + on.rows,
        patients=was.patients - off.patients + on.patients,
        positive=was.positive - off.positive + on.positive,
        attrition=tuple(map(_step, was.attrition, off.attrition, on.attrition)),
        source=SourceCounts(
            records=_change(was.source.records, off.source.records, on.source.records),
            excluded=_without_zeros(
                _change(was.source.excluded, off.source.excluded, on.source.excluded)
            ),
            unmapped=_without_zeros(
                _change(was.source.unmapped, off.source.unmapped, on.source.unmapped)
            ),
        ),
        features={
            name: FeatureCounts(
                **_change(vars(item), vars(off.features[name]), vars(on.features[name]))
            )
            for name, item in was.features.items()
        },
        variables={
            name: VariableCounts(
                **_change(vars(item), vars(off.variables[name]), vars(on.variables[name]))
            )
            for name, item in was.variables.items()
        },
    )


def _step(was: Attrition, off: Attrition, on: Attrition) -> Attrition:
    return Attrition(
        was.step, was.rows - off.rows + on.rows, was.patients - off.patients + on.patients
    )


def _change(
    was: Mapping[KeyT, int], off: Mapping[KeyT, int], on: Mapping[KeyT, int]
) -> dict[KeyT, int]:
    keys = dict.fromkeys([*was, *off, *on])
    return {key: was.get(key, 0) - off.get(key, 0) + on.get(key, 0) for key in keys}


def _without_zeros(counts: dict[KeyT, int]) -> dict[KeyT, int]:
    return {key: count for key, count in counts.items() if count > 0}
