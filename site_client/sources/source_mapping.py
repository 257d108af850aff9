"""The `[source]` part of `site.toml`: one of the kinds of data that a site can have."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from site_client.sources.code_map import SiteCode
from site_client.sources.event_table_mapping import EventTablesMapping
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.table_mapping import TableMapping


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("no IANA time zone, such as Europe/London") from None
    return name


FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
TimeZone = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_known_zone)]
Schema = Annotated[str, Field(min_length=1, max_length=128)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _OmopPart(_Part):
    """What every form of the OMOP CDM has.

    Args:
        time_zone: of the site, for times that are stored with an offset.
        data_until: the first day after the data; de-identified data with times in the future need
            it.
    """

    time_zone: TimeZone | None = None
    data_until: datetime.date | None = None

    @property
    def zone(self) -> ZoneInfo | None:
        """The time zone itself."""
        return None if self.time_zone is None else ZoneInfo(self.time_zone)


class OmopFolderMapping(_OmopPart):
    """OMOP CDM tables as files in a folder."""

    kind: Literal["omop"]
    path: FilePath


class OmopDuckDBMapping(_OmopPart):
    """OMOP CDM tables in a DuckDB file."""

    kind: Literal["omop_duckdb"]
    path: FilePath
    schema_name: Schema = Field(default="main", alias="schema")


class OmopPostgresMapping(_OmopPart):
    """OMOP CDM tables in PostgreSQL: the one connection the agent ever opens.

    Args:
        url: libpq's, `postgresql://reader@host/cdm`; a password belongs in `~/.pgpass`.
    """

    kind: Literal["omop_postgresql"]
    url: Annotated[str, Field(pattern=r"^postgres(ql)?://", max_length=4096)]
    schema_name: Schema = Field(default="public", alias="schema")


class FhirMapping(_Part):
    """FHIR R4 bulk export or bundles in a folder.

    Args:
        time_zone: of the site.
        data_until: the first day after the data.
        code_map: the site's own code, `system|code`, to a standard one; goes before any coding.
        code_maps: CSV files of the same; see `code_map.py`.
    """

    kind: Literal["fhir"]
    path: FilePath
    time_zone: TimeZone
    data_until: datetime.date | None = None
    code_map: dict[SiteCode, str] = Field(default_factory=dict)
    code_maps: Annotated[tuple[FilePath, ...], Field(strict=False)] = ()


EventMapping: TypeAlias = (
    OmopFolderMapping
    | OmopDuckDBMapping
    | OmopPostgresMapping
    | FhirMapping
    | MedsMapping
    | EventTablesMapping
)
SourceMapping: TypeAlias = Annotated[TableMapping | EventMapping, Field(discriminator="kind")]
