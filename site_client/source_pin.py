"""Rows numbered instead of identified: the file that numbers them may not change.

With `subject_id = "#row"` a patient is the number of a line, and the ledger counts by patient.
After the first release another file would move patients between those who train and those held out,
and what was spent on them could no longer be told. So the first file is pinned.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.errors import DataSourceError
from site_client.site_database import SiteDatabase
from site_client.sources.table_mapping import ROW_NUMBER, TableMapping


class SourcePin:
    """What a site's patients are identified by, fixed at the first release."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def check(self, mapping: TableMapping, *, folder: Path) -> None:
        """Pin the source the first time, and refuse another one later.

        Raises:
            DataSourceError: when the identifier's column, or a file of numbered rows, is another.
        """
        digest = ""
        if mapping.subject_id == ROW_NUMBER:
            with (folder / mapping.path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._database.transaction() as connection:
            known = connection.execute("SELECT subject_id, digest FROM source_pin").fetchone()
            if known is None:
                connection.execute(
                    "INSERT INTO source_pin VALUES (?, ?)", (mapping.subject_id, digest)
                )
                return
        if tuple(known) != (mapping.subject_id, digest):
            raise DataSourceError(
                "the table no longer tells who was in earlier releases",
                expected=f"subject_id = {known[0]!r} as before"
                + (" and the same file, since its rows have no identifier" if known[1] else ""),
                arrived=f"subject_id = {mapping.subject_id!r}"
                + (" and another file" if mapping.subject_id == known[0] else ""),
                todo="restore it; for a table that grows, give patients an identifier before the "
                "first release",
            )
