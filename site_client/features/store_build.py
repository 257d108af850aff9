"""Rows of a plan by way of the store: as they were, or made anew, whole or for changed patients."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from common.canonical import digest_record
from common.clock import Clock
from common.errors import DataSourceError
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_bytes, plan_digest
from site_client.features.definitions import NumericVariable, Variable
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.extraction import VariableCounts
from site_client.features.index_dates import Attrition
from site_client.features.site_rows import SiteRows, check_rows
from site_client.features.store import FeatureStore, StoreWriter
from site_client.features.store_entry import (
    EntryKey,
    FeatureEntry,
    FeatureRecord,
    NamedCount,
    RowsFile,
    SourceFile,
    SourceState,
    StepCount,
    UsedUnit,
    digest_of_text,
    software_version,
)
from site_client.features.store_rows import rows_of_arrow, rows_to_arrow
from site_client.sources.events import EventSource, Exclusion, SourceCounts
from site_client.sources.open_source import open_source
from site_client.sources.source_manifest import FileDigests
from site_client.sources.source_mapping import EventMapping
from site_client.sources.table import FeatureCounts

ROWS: Final = "rows"


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Args:
        entry: of the store.
        how: "cached" when nothing had to be read.
        rows: of the entry.
    """

    entry: FeatureEntry
    how: Literal["cached", "full", "increment"]
    rows: SiteRows


class FeatureBuilder:
    """Makes entries of a store from a site's source of events.

    Args:
        store: of the site.
        mapping: `[source]` of `site.toml`.
        folder: where `site.toml` lies; a relative path starts there.
        scratch: the agent's own folder for builds.
        clock: tells when an entry was built.
    """

    def __init__(
        self,
        store: FeatureStore,
        mapping: EventMapping,
        *,
        folder: Path,
        scratch: Path,
        clock: Clock,
    ) -> None:
        self._store = store
        self._mapping = mapping
        self._source = open_source(mapping, folder=folder)
        self._scratch = scratch
        self._clock = clock

    def build(self, plan: StudyPlan, *, fresh: bool = False) -> Built:
        """Return the entry of a plan for the source as it is now.

        Args:
            plan: to be followed.
            fresh: read the whole source even when there is a whole entry of it.

        Raises:
            PlanError: the plan has no index date.
            DataSourceError: the data do not fit the plan, or changed while they were read, or the
                store cannot be written.
        """
        with self._store.writing() as writer:
            digests = FileDigests(self._store.file_digests)
            key, state = self._now(plan, digests)
            found = None if fresh else self._store.find(key)
            if found is not None and self._store.is_whole(found):
                return Built(found, "cached", self.rows(found))
            events = self._read(plan)
            check_rows(plan, events)
            if self._now(plan, digests) != (key, state):
                raise DataSourceError(
                    "the source changed while it was read",
                    expected="a source that nobody writes during a build",
                    arrived="another content at its end than at its beginning",
                    todo="wait until the export is complete, then build again",
                )
            entry = self._write(writer, plan, key, state, events)
            return Built(entry, "full", SiteRows(events.table, events))

    def newest(self, plan: StudyPlan) -> FeatureEntry | None:
        """Return the newest whole entry of a plan that this software made from this `[source]`."""
        digest, declared = plan_digest(plan), self._declared()
        for entry in self._store.entries():
            if (
                entry.key.plan_digest == digest
                and entry.key.software == software_version()
                and entry.source.declared == declared
                and self._store.is_whole(entry)
            ):
                return entry
        return None

    def rows(self, entry: FeatureEntry) -> SiteRows:
        """Return the rows of an entry; raises `DataSourceError` when it is damaged."""
        return read_entry(self._store, entry)

    def _read(self, plan: StudyPlan) -> EventPatients:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=self._scratch) as build:
            return read_event_patients(plan, self._source, scratch=Path(build))

    def _declared(self) -> str:
        text = json.dumps(self._mapping.model_dump(mode="json", by_alias=True), sort_keys=True)
        return digest_of_text("feature-source-declared", text)

    def _now(self, plan: StudyPlan, digests: FileDigests) -> tuple[EntryKey, SourceState]:
        files = _manifest(self._source, digests)
        declared = self._declared()
        state = SourceState(kind=self._mapping.kind, declared=declared, files=files)
        content = (
            [[item.name, item.content] for item in files] if files else self._source.fingerprint()
        )
        fingerprint = digest_record("feature-source", {"content": content, "declared": declared})
        return (
            EntryKey(
                plan_digest=plan_digest(plan),
                fingerprint=fingerprint,
                software=software_version(),
            ),
            state,
        )

    def _write(
        self,
        writer: StoreWriter,
        plan: StudyPlan,
        key: EntryKey,
        state: SourceState,
        events: EventPatients,
    ) -> FeatureEntry:
        def describe(files: dict[str, RowsFile]) -> FeatureEntry:
            return FeatureEntry(
                key=key,
                study_id=plan.study.id,
                plan=plan_bytes(plan).decode(),
                built_at_s=self._clock.now_s(),
                source=state,
                build="full",
                base="",
                recomputed=events.table.patients,
                rows=events.table.rows,
                patients=events.table.patients,
                positive=int(events.table.label.sum()),
                attrition=[
                    StepCount(step=item.step, rows=item.rows, patients=item.patients)
                    for item in events.attrition
                ],
                records=_named(events.source.records),
                excluded=_named({why.name: n for why, n in events.source.excluded.items()}),
                unmapped=_named(events.source.unmapped),
                features=[_feature(events, name) for name in events.table.counts],
                files=files,
            )

        return writer.write({ROWS: rows_to_arrow(events.table, events.index_time)}, describe)


def read_entry(store: FeatureStore, entry: FeatureEntry) -> SiteRows:
    """Return the rows of an entry as a build returned them; raises `DataSourceError`."""
    counts = {
        item.name: FeatureCounts(item.recorded, item.missing, item.out_of_range, item.unmapped)
        for item in entry.features
    }
    table, index_time = rows_of_arrow(store.read(entry, ROWS), counts)
    source = SourceCounts(
        records={item.name: item.count for item in entry.records},
        excluded={Exclusion[item.name]: item.count for item in entry.excluded},
        unmapped={item.name: item.count for item in entry.unmapped},
    )
    attrition = tuple(Attrition(item.step, item.rows, item.patients) for item in entry.attrition)
    met = {
        item.name: VariableCounts(item.used, item.no_value, item.other_unit, item.implausible)
        for item in entry.features
        if item.codes
    }
    return SiteRows(table, EventPatients(table, attrition, source, met, {}, index_time))


def _manifest(source: EventSource, digests: FileDigests) -> list[SourceFile]:
    files = source.files()
    if files is None:
        return []
    return [
        SourceFile(name=item.name, size_bytes=item.size_bytes, content=item.content)
        for item in digests.manifest(files)
    ]


def _named(counts: dict[str, int]) -> list[NamedCount]:
    return [NamedCount(name=name, count=count) for name, count in counts.items()]


def _feature(events: EventPatients, name: str) -> FeatureRecord:
    counts = events.table.counts[name]
    met = events.variables.get(name, VariableCounts())
    variable = events.asked.get(name)
    return FeatureRecord(
        name=name,
        codes=len(variable.codes) if variable else 0,
        units=_units(variable),
        recorded=counts.recorded,
        missing=counts.missing,
        out_of_range=counts.out_of_range,
        unmapped=counts.unmapped,
        used=met.used,
        no_value=met.no_value,
        other_unit=met.other_unit,
        implausible=met.implausible,
    )


def _units(variable: Variable | None) -> list[UsedUnit]:
    if not isinstance(variable, NumericVariable) or variable.conversions is None:
        return []
    return [
        UsedUnit(unit=unit, factor=repr(item.factor), offset=repr(item.offset))
        for unit, item in sorted(variable.conversions.items())
    ]
