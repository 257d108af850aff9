"""The features that training and evaluation see, made once for a study and kept in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from common.ids import Digest
from common.study.plan import StudyPlan
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.features.site_rows import read_rows
from site_client.source_pin import SourcePin
from site_client.sources.source_mapping import SourceMapping
from site_client.sources.table_mapping import TableMapping


class Features(Protocol):
    """Where a site's features come from."""

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the features of a plan; raises `DataSourceError`."""
        ...


class SourceFeatures:
    """Features of the site's own source.

    A table is read again when its file changed. Events are read once for a plan: a study goes on
    with the patients with whom it began, until the agent starts anew.

    Args:
        mapping: `[source]` of `site.toml`.
        folder: where it lies.
        scratch: the agent's own folder for builds.
        salt: the site's secret.
        pin: what the patients of earlier releases were identified by; None: not checked.
    """

    def __init__(
        self,
        mapping: SourceMapping,
        *,
        folder: Path,
        scratch: Path,
        salt: bytes,
        pin: SourcePin | None,
    ) -> None:
        self._mapping = mapping
        self._folder = folder
        self._scratch = scratch
        self._salt = salt
        self._pin = pin
        self._made: tuple[tuple[Digest, int, int], FeatureMatrix] | None = None

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the features of a plan; raises `DataSourceError`."""
        key = (digest, *self._state())
        if self._made is None or self._made[0] != key:
            rows = read_rows(plan, self._mapping, folder=self._folder, scratch=self._scratch)
            if self._pin is not None:
                self._pin.check(self._mapping, folder=self._folder, salt=self._salt)
            self._made = (key, build_matrix(rows.table, plan, salt=self._salt))
        return self._made[1]

    def _state(self) -> tuple[int, int]:
        if not isinstance(self._mapping, TableMapping):
            return 0, 0
        path = self._folder / self._mapping.path
        status = path.stat() if path.exists() else None
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)
