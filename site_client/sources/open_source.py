"""From the `[source]` part of `site.toml` to a reader of events."""

from __future__ import annotations

from pathlib import Path

from site_client.sources.event_table_mapping import EventTablesMapping
from site_client.sources.event_tables import EventTables
from site_client.sources.events import EventSource
from site_client.sources.fhir import FhirFolder
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.omop import OmopFolder
from site_client.sources.omop_duckdb import OmopDuckDB
from site_client.sources.omop_postgresql import OmopPostgres
from site_client.sources.source_mapping import (
    EventMapping,
    FhirMapping,
    OmopDuckDBMapping,
    OmopFolderMapping,
    OmopPostgresMapping,
)


def open_source(mapping: EventMapping, *, folder: Path) -> EventSource:
    """Return a site's source of events; nothing is read yet.

    Args:
        mapping: from `site.toml`.
        folder: where `site.toml` lies; a relative path starts there.

    Raises:
        ConfigError: a mapping that contradicts itself.
    """
    match mapping:
        case OmopFolderMapping():
            return OmopFolder(
                folder / mapping.path, data_until=mapping.data_until, time_zone=mapping.zone
            )
        case OmopDuckDBMapping():
            return OmopDuckDB(
                folder / mapping.path,
                schema=mapping.schema_name,
                data_until=mapping.data_until,
                time_zone=mapping.zone,
            )
        case OmopPostgresMapping():
            return OmopPostgres(
                mapping.url,
                schema=mapping.schema_name,
                data_until=mapping.data_until,
                time_zone=mapping.zone,
            )
        case FhirMapping():
            return FhirFolder(
                folder / mapping.path,
                mapping.time_zone,
                data_until=mapping.data_until,
                code_map=mapping.code_map,
                code_maps={name: folder / name for name in mapping.code_maps},
            )
        case MedsMapping():
            return MedsFolder(mapping, folder=folder)
        case EventTablesMapping():
            return EventTables(mapping, folder=folder)
