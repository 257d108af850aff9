"""How one table at a site maps to a plan's features: the `[source]` part of `site.toml`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

ROW_NUMBER: Final = "#row"
"""As `subject_id`: the table has no identifier, and each row is another patient."""

Cell = Annotated[str, Field(max_length=1000)]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class FeatureMapping(_Part):
    """Where one feature stands in the table.

    Args:
        column: the table's column.
        unit: of a numeric feature, must be the plan's.
        values: for a categorical feature, cell text to the plan's level.
        missing_values: cell texts that mean "not recorded" in this column, besides the table's.
    """

    column: ColumnName
    unit: str | None = None
    values: dict[Cell, str] | None = None
    missing_values: Annotated[tuple[Cell, ...], Field(strict=False)] = ()


class LabelMapping(_Part):
    """Where the label stands, and which cell texts mean yes and no."""

    column: ColumnName
    positive: Annotated[tuple[Cell, ...], Field(min_length=1, strict=False)]
    negative: Annotated[tuple[Cell, ...], Field(min_length=1, strict=False)]


class TableMapping(_Part):
    """One table, CSV (also gzipped) or Parquet, one row a patient.

    Args:
        path: relative to site.toml or absolute.
        columns: the columns' names when the file has no header line.
        subject_id: the identifier's column, or "#row".
        index_date_column: of each row's index date; monitoring needs it, training does not.
        missing_values: cell texts that mean "not recorded", besides the empty one.
    """

    kind: Literal["table"]
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    format: Literal["csv", "parquet"] = "csv"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    columns: Annotated[tuple[ColumnName, ...], Field(strict=False)] = ()
    subject_id: ColumnName
    index_date_column: ColumnName | None = None
    missing_values: Annotated[tuple[Cell, ...], Field(strict=False)] = ("",)
    features: dict[str, FeatureMapping]
    label: LabelMapping
