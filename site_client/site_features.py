"""The features that training and evaluation see, made once for a study and kept in memory."""

from __future__ import annotations

from typing import Final, Protocol

from common.clock import Clock
from common.errors import DataSourceError
from common.ids import Digest
from common.study.plan import StudyPlan
from site_client.approvals import Approvals
from site_client.config import SiteConfig, SitePaths
from site_client.feature_use import FeaturePins, FeatureUse
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.features.site_rows import SiteRows, read_rows
from site_client.features.store import FeatureStore
from site_client.features.store_build import FeatureBuilder, read_entry
from site_client.source_pin import SourcePin
from site_client.sources.source_mapping import EventMapping, SourceMapping
from site_client.sources.table_mapping import TableMapping

REFUSED_AGAIN_S: Final = 600
"""How long events that did not fit are not read again; an agent started anew reads at once."""


class Features(Protocol):
    """Where a site's features come from."""

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the features of a plan; raises `DataSourceError`."""
        ...


class FeatureRecords(Protocol):
    """What a site has recorded that its features depend on."""

    @property
    def approvals(self) -> Approvals:
        """The plans that may have features."""

    @property
    def source_pin(self) -> SourcePin | None:
        """What the patients of earlier releases were identified by."""

    @property
    def feature_pins(self) -> FeaturePins | None:
        """Which entries studies began with; None for a throw-away site."""


class SourceFeatures:
    """Features of the site's own source.

    A table is read again when its file changed. Events come from the feature store: of the entry
    with which the study began here; before its first release, of the plan's newest one; and when
    there is none, the source is read.

    Args:
        mapping: `[source]` of `site.toml`.
        paths: of the site.
        salt: the site's secret.
        clock: tells when an entry was built.
        pin: what the patients of earlier releases were identified by; None: not checked.
        use: which entries studies began with; None: nothing is fixed, and nothing expires.
        patients_min: of the site; of fewer nothing is asked but their number.
    """

    def __init__(
        self,
        mapping: SourceMapping,
        *,
        paths: SitePaths,
        salt: bytes,
        clock: Clock,
        pin: SourcePin | None,
        use: FeatureUse | None,
        patients_min: int = 0,
    ) -> None:
        self._mapping = mapping
        self._paths = paths
        self._salt = salt
        self._clock = clock
        self._pin = pin
        self._use = use
        self._patients_min = patients_min
        self._refused: tuple[tuple[Digest, int, int], int, DataSourceError] | None = None
        self._made: tuple[tuple[Digest, int, int], FeatureMatrix] | None = None

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the features of a plan; raises `DataSourceError`."""
        key = (digest, *self._state())
        if self._made is None or self._made[0] != key:
            rows, entry_id = self._rows_or_refusal(key, digest, plan)
            if self._pin is not None:
                self._pin.check(self._mapping, folder=self._paths.home, salt=self._salt)
            if self._use is not None and entry_id:
                self._use.pins.pin(digest, entry_id)
            self._made = (key, build_matrix(rows.table, plan, salt=self._salt))
        return self._made[1]

    def _rows_or_refusal(
        self, key: tuple[Digest, int, int], digest: Digest, plan: StudyPlan
    ) -> tuple[SiteRows, str]:
        """Read, or refuse as a short while ago: a request repeated must not read all again."""
        now_s = self._clock.now_s()
        if self._refused is not None:
            refused_key, until_s, error = self._refused
            if refused_key == key and now_s < until_s:
                raise error.with_traceback(None)  # each raise would lengthen it
        try:
            return self._rows(digest, plan)
        except DataSourceError as error:
            self._refused = (key, now_s + REFUSED_AGAIN_S, error)
            raise

    def _rows(self, digest: Digest, plan: StudyPlan) -> tuple[SiteRows, str]:
        if isinstance(self._mapping, TableMapping):
            return _read_directly(plan, self._mapping, self._paths, self._patients_min), ""
        began_with = self._use.pins.find(digest) if self._use is not None else None
        if began_with is not None:
            return _pinned(FeatureStore(self._paths.features), began_with), began_with
        builder = builder_of(
            self._mapping,
            paths=self._paths,
            clock=self._clock,
            patients_min=self._patients_min,
        )
        entry = builder.newest(plan)
        if entry is not None:
            return builder.rows(entry), entry.id
        built = builder.build(plan)
        if self._use is not None:
            self._use.drop_older()
        return builder.rows(built.entry), built.entry.id

    def _state(self) -> tuple[int, int]:
        if not isinstance(self._mapping, TableMapping):
            return 0, 0
        path = self._paths.home / self._mapping.path
        status = path.stat() if path.exists() else None
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)


def builder_of(
    mapping: EventMapping, *, paths: SitePaths, clock: Clock, patients_min: int = 0
) -> FeatureBuilder:
    """Return what makes entries of the site's feature store from its source of events."""
    return FeatureBuilder(
        FeatureStore(paths.features),
        mapping,
        folder=paths.home,
        scratch=paths.scratch,
        clock=clock,
        patients_min=patients_min,
    )


def inspected_rows(
    plan: StudyPlan, mapping: SourceMapping, *, paths: SitePaths, clock: Clock
) -> SiteRows:
    """Return a plan's rows of the source as it is now, and what a steward should know of events.

    The source is read, for what is told of its events is not kept; its rows are kept in the store.

    Raises:
        PlanError, DataSourceError: see `FeatureBuilder.build`.
    """
    if isinstance(mapping, TableMapping):
        return _read_directly(plan, mapping, paths)
    events = builder_of(mapping, paths=paths, clock=clock).inspect(plan)
    return SiteRows(events.table, events)


def _read_directly(
    plan: StudyPlan, mapping: TableMapping, paths: SitePaths, patients_min: int = 0
) -> SiteRows:
    return read_rows(
        plan, mapping, folder=paths.home, scratch=paths.scratch, patients_min=patients_min
    )


def _pinned(store: FeatureStore, entry_id: str) -> SiteRows:
    try:
        return read_entry(store, store.entry(entry_id))
    except DataSourceError:
        pass
    raise DataSourceError(
        "the rows with which this study began here are damaged or gone",
        expected=f"the entry {entry_id} of the feature store, as it was",
        arrived="another content, or none",
        todo=f"decide whether the study may go on with today's rows; then run `cohortium-site "
        f"features drop {entry_id} --in-use` and start the agent again",
    )


def feature_use(
    config: SiteConfig, paths: SitePaths, records: FeatureRecords, clock: Clock
) -> FeatureUse | None:
    """Return what the site's studies use of its feature store; None for a throw-away site."""
    if records.feature_pins is None:
        return None
    return FeatureUse(
        FeatureStore(paths.features),
        records.approvals,
        records.feature_pins,
        clock,
        config.features.keep_days,
    )


def source_features(
    config: SiteConfig, paths: SitePaths, *, salt: bytes, records: FeatureRecords, clock: Clock
) -> SourceFeatures:
    """Return the features of a site's own source.

    Args:
        config: hospital IT's.
        paths, salt, records, clock: of the site.
    """
    return SourceFeatures(
        config.source,
        paths=paths,
        salt=salt,
        clock=clock,
        pin=records.source_pin,
        use=feature_use(config, paths, records, clock),
        patients_min=config.limits.cohort_size_min,
    )
