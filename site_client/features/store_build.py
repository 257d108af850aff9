"""Rows of a plan by way of the store: as they were, or made anew, whole or for changed patients."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from common.canonical import digest_record
from common.clock import Clock
from common.errors import DataSourceError
from common.ids import Digest
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_bytes, plan_digest
from site_client.features.definitions import Variable
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.row_counts import RowCounts, counts_of
from site_client.features.site_rows import SiteRows, check_rows
from site_client.features.store import FeatureStore, StoreWriter
from site_client.features.store_counts import counts_in, counts_record
from site_client.features.store_entry import (
    EntryKey,
    FeatureEntry,
    RowsFile,
    SourceFile,
    SourceState,
    digest_of_text,
    software_version,
)
from site_client.features.store_increment import DELTA, ROWS, grow, whole_rows
from site_client.features.store_rows import rows_of_arrow, rows_to_arrow
from site_client.sources.events import EventSource
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_growth import MedsGrowth, growth_of
from site_client.sources.open_source import open_source
from site_client.sources.source_manifest import FileDigests, name_digest
from site_client.sources.source_mapping import EventMapping

DELTA_SHARE_MAX: Final = 0.1
"""Of the rows: with more, an increment writes all rows into one file again."""
_SCRATCH: Final = "features-"


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Args:
        entry: of the store.
        how: "cached" when nothing had to be read.
    """

    entry: FeatureEntry
    how: Literal["cached", "full", "increment"]


@dataclass(frozen=True)
class _Made:
    tables: dict[str, pa.Table]
    counts: RowCounts
    asked: Mapping[str, Variable]
    base: FeatureEntry | None
    recomputed: int


class FeatureBuilder:
    """Makes entries of a store from a site's source of events.

    Args:
        store: of the site.
        mapping: `[source]` of `site.toml`.
        folder: where `site.toml` lies; a relative path starts there.
        scratch: the agent's own folder for builds.
        clock: tells when an entry was built.
        patients_min: see `check_rows`.
    """

    def __init__(
        self,
        store: FeatureStore,
        mapping: EventMapping,
        *,
        folder: Path,
        scratch: Path,
        clock: Clock,
        patients_min: int = 0,
    ) -> None:
        self._patients_min = patients_min
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
            key, state = self._now(plan_digest(plan), digests)
            found = None if fresh else self._store.find(key)
            if found is not None and self._store.is_whole(found):
                return Built(found, "cached")
            base = None if fresh else self._base(plan, state)
            with self._scratch_folder() as scratch:
                made = self._grown(plan, base, scratch) if base else None
                if made is None:
                    made = _made_of(read_event_patients(plan, self._source, scratch=scratch))
            entry = self._keep(writer, plan, made, key, state, digests)
        return Built(entry, entry.build)

    def inspect(self, plan: StudyPlan) -> EventPatients:
        """Read the whole source, keep its rows, and return them with what a steward should know.

        Raises:
            PlanError, DataSourceError: see `build`.
        """
        with self._store.writing() as writer, self._scratch_folder() as scratch:
            digests = FileDigests(self._store.file_digests)
            key, state = self._now(plan_digest(plan), digests)
            events = read_event_patients(plan, self._source, scratch=scratch, is_inspected=True)
            self._keep(writer, plan, _made_of(events), key, state, digests)
        return events

    def _keep(
        self,
        writer: StoreWriter,
        plan: StudyPlan,
        made: _Made,
        key: EntryKey,
        state: SourceState,
        digests: FileDigests,
    ) -> FeatureEntry:
        check_rows(plan, made.counts, patients_min=self._patients_min)
        if self._now(plan_digest(plan), digests) != (key, state):
            raise _changed_meanwhile()
        record = counts_record(made.counts, made.asked, base=made.base)

        def describe(files: dict[str, RowsFile]) -> FeatureEntry:
            return FeatureEntry(
                key=key,
                study_id=plan.study.id,
                plan=plan_bytes(plan).decode(),
                built_at_s=self._clock.now_s(),
                source=state,
                build="increment" if made.base else "full",
                base=made.base.id if made.base else "",
                recomputed=made.recomputed,
                files=files,
                **record,
            )

        shared = {} if made.base is None or ROWS in made.tables else {ROWS: made.base}
        return writer.write(made.tables, describe, shared=shared)

    def cached(self, plan: Digest) -> Built | None:
        """Return the whole entry of a plan for the source as it is now; None when there is none.

        Raises:
            DataSourceError: the source or the store cannot be read.
        """
        with self._store.writing():
            key, _ = self._now(plan, FileDigests(self._store.file_digests))
            found = self._store.find(key)
            whole = found is not None and self._store.is_whole(found)
        return Built(found, "cached") if found is not None and whole else None

    def newest(self, plan: StudyPlan) -> FeatureEntry | None:
        """Return the newest whole entry of a plan that this software made from this `[source]`."""
        return next(filter(self._store.is_whole, self._entries_of(plan)), None)

    def _entries_of(self, plan: StudyPlan) -> Iterator[FeatureEntry]:
        digest, declared = plan_digest(plan), self._declared()
        for entry in self._store.entries():
            is_ours = entry.key.software == software_version()
            if is_ours and (entry.key.plan_digest, entry.source.declared) == (digest, declared):
                yield entry

    def rows(self, entry: FeatureEntry) -> SiteRows:
        """Return the rows of an entry; raises `DataSourceError` when it is damaged."""
        return read_entry(self._store, entry)

    @contextmanager
    def _scratch_folder(self) -> Iterator[Path]:
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._scratch.glob(f"{_SCRATCH}*"):  # by a build that died: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._scratch) as build:
            yield Path(build)

    def _base(self, plan: StudyPlan, state: SourceState) -> FeatureEntry | None:
        """Return the entry of the plan with the most files, all of which the source still has."""
        if not isinstance(self._source, MedsFolder):
            return None
        now = {(item.name, item.content) for item in state.files}
        known = [
            entry
            for entry in self._entries_of(plan)
            if now.issuperset((item.name, item.content) for item in entry.source.files)
        ]
        known.sort(key=lambda entry: -len(entry.source.files))
        return next(filter(self._store.is_whole, known), None)

    def _grown(self, plan: StudyPlan, base: FeatureEntry, scratch: Path) -> _Made | None:
        growth = self._growth(base, scratch)
        if growth is None:
            return None
        others = {name: self._store.read(base, name) for name in base.files if name != ROWS}
        grown = grow(plan, others, counts_in(base), growth, scratch=scratch)
        tables = grown.tables
        if len(tables[DELTA]) > DELTA_SHARE_MAX * base.rows:
            tables = {ROWS: whole_rows({ROWS: self._store.read(base, ROWS), **tables})}
        return _Made(tables, grown.counts, grown.asked, base, len(growth.patients))

    def _growth(self, base: FeatureEntry, scratch: Path) -> MedsGrowth | None:
        if not isinstance(self._source, MedsFolder):
            return None
        known = {item.name for item in base.source.files}
        others = {name_digest(name) for name, _ in self._source.files()} - known
        if others - {name_digest(name) for name, _ in self._source.shards()}:
            return None  # another code map, or metadata: any patient's codes may mean another thing
        return growth_of(
            self._source,
            known=known,
            end_before=datetime.datetime.fromisoformat(base.source.end),
            scratch=scratch,
        )

    def _declared(self) -> str:
        text = json.dumps(self._mapping.model_dump(mode="json", by_alias=True), sort_keys=True)
        return digest_of_text("feature-source-declared", text)

    def _now(self, plan: Digest, digests: FileDigests) -> tuple[EntryKey, SourceState]:
        files = _manifest(self._source, digests)
        declared = self._declared()
        end = self._source.end().isoformat() if isinstance(self._source, MedsFolder) else ""
        state = SourceState(kind=self._mapping.kind, declared=declared, end=end, files=files)
        content = (
            [[item.name, item.content] for item in files] if files else self._source.fingerprint()
        )
        fingerprint = digest_record("feature-source", {"content": content, "declared": declared})
        return (
            EntryKey(
                plan_digest=plan,
                fingerprint=fingerprint,
                software=software_version(),
            ),
            state,
        )


def _made_of(events: EventPatients) -> _Made:
    rows = {ROWS: rows_to_arrow(events.table, events.index_time)}
    return _Made(rows, counts_of(events), events.asked, None, events.table.patients)


def read_entry(store: FeatureStore, entry: FeatureEntry) -> SiteRows:
    """Return the rows of an entry as they were built; raises `DataSourceError`."""
    counts, tables = counts_in(entry), {name: store.read(entry, name) for name in entry.files}
    table, index_time = rows_of_arrow(whole_rows(tables), dict(counts.features))
    events = EventPatients(
        table=table,
        attrition=counts.attrition,
        source=counts.source,
        variables=counts.variables,
        asked={},
        index_time=index_time,
    )
    return SiteRows(table, events)


def _manifest(source: EventSource, digests: FileDigests) -> list[SourceFile]:
    files = source.files()
    if files is None:
        return []
    return [
        SourceFile(name=item.name, size_bytes=item.size_bytes, content=item.content)
        for item in digests.manifest(files)
    ]


def _changed_meanwhile() -> DataSourceError:
    return DataSourceError(
        "the source changed while it was read",
        expected="a source that nobody writes during a build",
        arrived="another content at its end than at its beginning",
        todo="wait until the export is complete, then build again",
    )
