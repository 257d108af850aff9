"""How a vendor's tables map to the event table: the `[source]` part of `site.toml`."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from site_client.sources.code_map import SiteCode

ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Cell = Annotated[str, Field(max_length=1000)]
TimeFormat = Annotated[str, Field(min_length=2, max_length=100, pattern=r"^[^\x00]+$")]
Vocabulary = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,40}$")]

_DIRECTIVES = frozenset("aAbBdfHIjmMpSyY")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TableFile(_Part):
    """One file: CSV with a header line (`.gz`: gzipped) or Parquet, every cell taken as text.

    Args:
        path: relative to site.toml or absolute.
    """

    path: FilePath
    format: Literal["csv", "parquet"] = "csv"
    delimiter: Annotated[str, Field(pattern=r"^[\x20-\x7e\t]$")] = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"


class TimeColumn(_Part):
    """A time, either as it stands or as a distance from the stay's anchor.

    Args:
        column: the column.
        formats: strptime formats tried in turn; without a zone, since times are wall clock.
        since_anchor: the unit of a distance instead; whole or broken numbers, before is negative.
    """

    column: ColumnName
    formats: Annotated[tuple[TimeFormat, ...], Field(strict=False)] = ()
    since_anchor: Literal["seconds", "minutes", "hours", "days"] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TimeColumn:
        if bool(self.formats) == (self.since_anchor is not None):
            raise ValueError("either `formats` or `since_anchor`")
        for text in self.formats:
            parts = text.replace("%%", "").split("%")[1:]
            if not parts or not _DIRECTIVES.issuperset(
                part.removeprefix("-")[:1] for part in parts
            ):
                raise ValueError("`formats` have strptime's directives, without a zone")
        return self


class Anchor(_Part):
    """What distances are counted from, one of two.

    Args:
        time: an absolute column of the table of subjects, such as the admission.
        date: the same declared day for every stay, when the data have no absolute time. A stay is
            then a time line that begins on that day: only distances within it mean anything.
        stay_order: with `date` and several stays a patient: a column whose number orders them.
        stay_days: how many days after the stay before it the next one is put.
    """

    time: TimeColumn | None = None
    date: datetime.date | None = None
    stay_order: ColumnName | None = None
    stay_days: Annotated[int, Field(ge=1, le=3660)] = 366

    @model_validator(mode="after")
    def _one_kind(self) -> Anchor:
        if (self.time is None) == (self.date is None):
            raise ValueError("either `time` or `date`")
        if self.time is not None and self.time.since_anchor is not None:
            raise ValueError("an anchor's time is absolute")
        if self.date is not None and not datetime.date(1900, 1, 1) <= self.date:
            raise ValueError("an anchor's date is not before 1900")
        return self


class SexColumn(_Part):
    """The recorded sex, by cell text."""

    column: ColumnName
    values: dict[Cell, Literal["female", "male", "other", "unknown"]]


class AgeColumn(_Part):
    """An age at the anchor in whole years; birth is put that many years before the anchor.

    Args:
        column: the column.
        values: cell texts that are no number, such as "> 89", to the age to take.
    """

    column: ColumnName
    values: dict[Cell, Annotated[int, Field(ge=0, le=150)]] = Field(default_factory=dict)


class SubjectsTable(_Part):
    """One row a patient, or a stay.

    Args:
        file: the table.
        subject: the patient's identifier: the unit that privacy protects.
        key: what the tables of events name, such as the stay; by default the patient.
        birth: its time; or none, or `age`.
        age: at the anchor, in place of a birth.
        sex: cell texts to sexes.
        death: its time.
        anchor: of distances; needed for `age` and every `since_anchor`.
    """

    file: TableFile
    subject: ColumnName
    key: ColumnName | None = None
    birth: TimeColumn | None = None
    age: AgeColumn | None = None
    sex: SexColumn | None = None
    death: TimeColumn | None = None
    anchor: Anchor | None = None

    @model_validator(mode="after")
    def _fits(self) -> SubjectsTable:
        if self.birth is not None and self.age is not None:
            raise ValueError("either `birth` or `age`")
        relative = [item for item in (self.birth, self.death) if item and item.since_anchor]
        if self.anchor is None and (self.age or relative):
            raise ValueError("`age` and `since_anchor` need an `anchor`")
        return self


class CodeColumn(_Part):
    """Codes in a column: mapped where `values` or a file names the cell, else left out and counted.

    Args:
        column: the column.
        values: cell text to standard code.
        map_files: CSV files of the same; see `code_map.py`.
        vocabulary: when the cells are themselves codes of it; `values` go first.
    """

    column: ColumnName
    values: dict[SiteCode, str] = Field(default_factory=dict)
    map_files: Annotated[tuple[FilePath, ...], Field(strict=False)] = ()
    vocabulary: Vocabulary | None = None


class TextColumn(_Part):
    """Answers in words; `values` maps cells to coded answers, others stay as they are."""

    column: ColumnName
    values: dict[Cell, str] = Field(default_factory=dict)


class UnitColumn(_Part):
    """Units in a column; `values` maps them to UCUM, others stay as recorded."""

    column: ColumnName
    values: dict[Cell, str] = Field(default_factory=dict)


class EventEntry(_Part):
    """Rows of one table that are events of one kind.

    Args:
        file: the table; several entries may read one.
        subject: the column with the subjects' `key`.
        time: none: not bound to a time.
        code: one standard code for all rows, or a column.
        value: a column of numbers.
        unit: one unit for all values, or a column.
        text: a column of answers.
        needs: columns that must not be empty for the row to be this event.
    """

    file: TableFile
    subject: ColumnName
    time: TimeColumn | None = None
    code: str | CodeColumn
    value: ColumnName | None = None
    unit: str | UnitColumn | None = None
    text: TextColumn | None = None
    needs: Annotated[tuple[ColumnName, ...], Field(strict=False)] = ()


class EventTablesMapping(_Part):
    """A vendor's tables.

    Args:
        subjects: who there is.
        events: what was recorded.
        missing_values: cell texts that mean "not recorded", besides the empty one.
        data_until: the first day after the data; by default the day after the files' last change.
        drop_duplicates: leave out exact repetitions and count them.
    """

    kind: Literal["event_tables"]
    subjects: SubjectsTable
    events: Annotated[tuple[EventEntry, ...], Field(strict=False)] = ()
    missing_values: Annotated[tuple[Cell, ...], Field(strict=False)] = ()
    data_until: datetime.date | None = None
    drop_duplicates: bool = False

    @model_validator(mode="after")
    def _fits(self) -> EventTablesMapping:
        relative = any(entry.time and entry.time.since_anchor for entry in self.events)
        if relative and self.subjects.anchor is None:
            raise ValueError("`since_anchor` needs [source.subjects.anchor]")
        return self
