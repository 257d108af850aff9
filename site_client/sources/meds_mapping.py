"""How a site's MEDS data map to the event table: the `[source]` part of `site.toml`."""

from __future__ import annotations

import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from site_client.sources.code_map import SiteCode

FORM_PATTERN: Final = (
    r"^[A-Za-z0-9_.+-]{1,40}//(?:<code>(?://[^<>/]+)*//<unit>|<unit>(?://[^<>/]+)*//<code>)$"
)

ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class MedsColumns(_Part):
    """Names of columns where they are not the standard's.

    Args:
        subject_id: whole numbers or text.
        time: a timestamp without zone, or a date.
        code: text.
        numeric_value: a number; none: the data have no values.
        text_value: text; none: not read.
    """

    subject_id: ColumnName = "subject_id"
    time: ColumnName = "time"
    code: ColumnName = "code"
    numeric_value: ColumnName | None = None
    text_value: ColumnName | None = None


class MedsMapping(_Part):
    """A MEDS data set: a folder as published, or one Parquet file.

    A code becomes, by the first of these that applies: what `code_map` or a file of `code_maps`
    says, for the code as it stands or without its unit; birth, death and sex; its parents in the
    vocabularies of `map_to_parents`, one event each; `VOCAB/code` by a form of `unit_in_code`;
    `VOCAB/code` when it is `VOCAB//code` or `VOCAB/code`. Any other code is counted as unmapped.

    Args:
        path: a folder with `data/` and `metadata/`, or a Parquet file; relative to site.toml.
        columns: none: each shard must have the standard's own schema. A single file of the early
            shape (subject_id, time, code, value) needs them.
        code_map: the site's code to a standard one.
        code_maps: CSV files of the same; see `code_map.py`.
        sexes: the site's code to a sex, besides `GENDER//F` and `GENDER//M`.
        map_to_parents: vocabularies, such as LOINC, whose codes among `parent_codes` replace the
            site's own.
        unit_column: a further column with units of measurement.
        unit_in_code: forms of codes that hold a unit, such as `LAB//<code>//<unit>`; used where
            `unit_column` has none.
        unit_missing: texts that mean "no unit", such as UNK.
        data_until: the first day after the data; by default the day after the files' last change.
            De-identified data with times in the future need it.
        drop_duplicates: leave out exact repetitions and count them. Costs a copy of the events on
            the agent's disk; without it the files are read in place.
    """

    kind: Literal["meds"]
    path: FilePath
    columns: MedsColumns | None = None
    code_map: dict[SiteCode, str] = Field(default_factory=dict)
    code_maps: Annotated[tuple[FilePath, ...], Field(strict=False)] = ()
    sexes: dict[SiteCode, Literal["female", "male", "other", "unknown"]] = Field(
        default_factory=dict
    )
    map_to_parents: Annotated[tuple[str, ...], Field(strict=False)] = ()
    unit_column: ColumnName | None = None
    unit_in_code: Annotated[
        tuple[Annotated[str, Field(pattern=FORM_PATTERN)], ...], Field(strict=False)
    ] = ()
    unit_missing: Annotated[tuple[str, ...], Field(strict=False)] = ("",)
    data_until: datetime.date | None = None
    drop_duplicates: bool = False
