"""A site's own source, read once for all plans of a simulation that ask for the same rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from common.study.plan import StudyPlan
from site_client.features.site_rows import read_rows
from site_client.sources.source_mapping import SourceMapping
from site_client.sources.table import PatientTable


class PatientSource:
    """Where a virtual site's patients come from.

    Args:
        mapping: as `[source]` of `site.toml`.
        folder: where a relative path starts.
    """

    def __init__(self, mapping: SourceMapping, *, folder: Path) -> None:
        self._mapping = mapping
        self._folder = folder
        self._read: dict[str, PatientTable] = {}

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows; raises `DataSourceError`."""
        # A forecast changes the privacy of a plan, not its question.
        question = plan.model_dump_json(include={"cohort", "features", "label"})
        if question not in self._read:
            with tempfile.TemporaryDirectory(prefix="cohortium-simulation-") as scratch:
                found = read_rows(plan, self._mapping, folder=self._folder, scratch=Path(scratch))
            # A table of events has its index dates beside it; a division by time asks for them.
            self._read[question] = (
                found.table
                if found.events is None
                else replace(found.table, index_time=found.events.index_time)
            )
        return self._read[question]
