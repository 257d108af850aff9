"""Rows of a source that grew: those of touched patients made anew, all others kept to the bit.

A row depends on its patient's events alone, so untouched patients' rows are what they were. Counts
are sums over patients: what the touched ones had is taken off, what they have now is put on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from common.study.plan import StudyPlan
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.extraction import VariableCounts
from site_client.features.index_dates import Attrition
from site_client.sources.events import SourceCounts
from site_client.sources.meds_growth import MedsGrowth
from site_client.sources.table import FeatureCounts, PatientTable

KeyT = TypeVar("KeyT")


def grow(
    plan: StudyPlan, base: EventPatients, growth: MedsGrowth, *, scratch: Path
) -> EventPatients:
    """Return what `read_event_patients` returns for the whole source as it is now.

    The list of codes without a standard one may differ in its rarest entries.

    Args:
        plan: of the base.
        base: the rows before.
        growth: since then.
        scratch: a folder of this build.

    Raises:
        DataSourceError: from the reader.
    """
    before = read_event_patients(plan, growth.before, scratch=scratch)
    now = read_event_patients(plan, growth.now, scratch=scratch)
    variables = {
        name: VariableCounts(
            **_change(vars(was), vars(before.variables[name]), vars(now.variables[name]))
        )
        for name, was in base.variables.items()
    }
    order = _order(base.table.subject_ids, now.table.subject_ids, growth.patients)
    source, off, on = base.source, before.source, now.source
    return EventPatients(
        table=_merged(base.table, before.table, now.table, order),
        attrition=tuple(map(_step, base.attrition, before.attrition, now.attrition)),
        source=SourceCounts(
            records=_change(source.records, off.records, on.records),
            excluded=_without_zeros(_change(source.excluded, off.excluded, on.excluded)),
            unmapped=_without_zeros(_change(source.unmapped, off.unmapped, on.unmapped)),
        ),
        variables=variables,
        asked=now.asked,
        index_time=np.concatenate([base.index_time, now.index_time])[order],
    )


def _order(
    base: tuple[str, ...], now: tuple[str, ...], touched: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """Return which rows of base and now, one after the other, make the whole, in its order.

    Both are ordered by the patient's name, and no patient has rows of both.
    """
    names = pa.array(base, pa.string())
    is_kept = compute.invert(compute.is_in(names, value_set=pa.array(touched, pa.string())))
    kept = np.flatnonzero(is_kept.to_numpy(zero_copy_only=False))
    kept_names = np.asarray(base, dtype=np.str_)[kept]
    places = np.searchsorted(kept_names, np.asarray(now, dtype=np.str_))
    return np.insert(kept, places, np.arange(len(base), len(base) + len(now)))


def _merged(
    base: PatientTable, before: PatientTable, now: PatientTable, order: npt.NDArray[np.int64]
) -> PatientTable:
    names = pa.chunked_array(
        [pa.array(base.subject_ids, pa.string()), pa.array(now.subject_ids, pa.string())]
    )
    return PatientTable(
        subject_ids=tuple(names.take(pa.array(order)).to_pylist()),
        numeric={
            name: np.concatenate([column, now.numeric[name]])[order]
            for name, column in base.numeric.items()
        },
        levels={
            name: np.concatenate([column, now.levels[name]])[order]
            for name, column in base.levels.items()
        },
        label=np.concatenate([base.label, now.label])[order],
        counts={
            name: FeatureCounts(
                **_change(vars(was), vars(before.counts[name]), vars(now.counts[name]))
            )
            for name, was in base.counts.items()
        },
        unlabelled=0,
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
