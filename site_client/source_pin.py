"""What tells a site's patients apart, fixed at the first release: identifier, salt, numbered file.

The ledger counts by the salted hash of a patient's identifier. With another salt, or another column
of identifiers, patients would move between those who train and those held out, and what was spent
on them could no longer be told. With `subject_id = "#row"` a patient is a line's number: another
file would number them anew, so the first file is pinned as well.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.canonical import digest_bytes
from common.errors import DataSourceError
from site_client.site_database import SiteDatabase
from site_client.sources.event_table_mapping import EventTablesMapping
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.source_mapping import (
    FhirMapping,
    OmopDuckDBMapping,
    OmopFolderMapping,
    OmopPostgresMapping,
    SourceMapping,
)
from site_client.sources.table_mapping import ROW_NUMBER, TableMapping


class SourcePin:
    """What a site's patients are identified by, fixed at the first release."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def check(self, mapping: SourceMapping, *, folder: Path, salt: bytes) -> None:
        """Pin the source the first time, and refuse another one later.

        Args:
            mapping: of the site's source.
            folder: where a relative path starts.
            salt: of the site's patients.

        Raises:
            DataSourceError: when the identifier's column, the salt, or a file of numbered rows is
                another.
        """
        identifier, digest = identifier_of(mapping), ""
        if isinstance(mapping, TableMapping) and identifier == ROW_NUMBER:
            with (folder / mapping.path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        salt_digest = digest_bytes("patient-salt", salt)
        with self._database.transaction() as connection:
            known = connection.execute(
                "SELECT subject_id, digest, salt_digest FROM source_pin"
            ).fetchone()
            if known is None:
                connection.execute(
                    "INSERT INTO source_pin VALUES (?, ?, ?)",
                    (identifier, digest, salt_digest),
                )
                return
        if known[2] != salt_digest:
            raise DataSourceError(
                "the site's salt is not the one of earlier releases",
                expected="the file keys/salt that the site had at its first release",
                arrived="another",
                todo="restore keys/salt from its backup; without it the ledger cannot go on",
            )
        if tuple(known[:2]) != (identifier, digest):
            raise DataSourceError(
                "the source no longer tells who was in earlier releases",
                expected=f"subject_id = {known[0]!r} as before"
                + (" and the same file, since its rows have no identifier" if known[1] else ""),
                arrived=f"subject_id = {identifier!r}"
                + (" and another file" if identifier == known[0] else ""),
                todo="restore it; for a table that grows, give patients an identifier before the "
                "first release",
            )


def identifier_of(mapping: SourceMapping) -> str:
    """Return what a source tells patients apart by, in words of `site.toml`."""
    match mapping:
        case TableMapping():
            return mapping.subject_id
        case OmopFolderMapping() | OmopDuckDBMapping() | OmopPostgresMapping():
            return "omop person_id"
        case FhirMapping():
            return "fhir Patient"
        case MedsMapping():
            return "meds " + (mapping.columns.subject_id if mapping.columns else "subject_id")
        case EventTablesMapping():
            return f"event_tables {mapping.subjects.subject}"
