"""Schemas of MEDS files: the standard's own check, or that of declared columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from site_client.sources.code_map import CODES_MAX
from site_client.sources.file_refusal import refuse_file
from site_client.sources.meds_codes import parent_form
from site_client.sources.meds_mapping import MedsColumns, MedsMapping
from site_client.sources.source_files import refuse_alike, refuse_column, sql_name

if TYPE_CHECKING:
    import pyarrow as arrow

_STANDARD: Final = MedsColumns(numeric_value="numeric_value", text_value="text_value")
_OPTIONAL: Final = ("numeric_value", "text_value")
_METADATA_BYTES_MAX: Final = 16 << 20


@dataclass(frozen=True)
class Shards:
    """SQL expressions over the shards' columns that give the event table's types."""

    subject_id: str
    time: str
    code: str
    numeric_value: str
    unit: str
    text_value: str
    is_finite: str
    """Of the number as it stands in the file."""
    has_subject: str


def read_shards(
    mapping: MedsMapping, files: list[tuple[str, Path]], *, with_metadata: Path
) -> Shards:
    """Check every shard's schema and return how its columns are read.

    Args:
        mapping: declared; without `columns` each schema is checked by the standard's own package.
        files: name and path of each shard.
        with_metadata: the folder whose metadata/dataset.json is checked where there is one.

    Raises:
        DataSourceError: with the file and the column.
    """
    if mapping.columns is None:
        _check_dataset(with_metadata / "metadata/dataset.json")
    columns = mapping.columns or _STANDARD
    kinds: dict[str, str] = {}
    for name, path in files:
        schema = _schema(name, path)
        if mapping.columns is None:
            _check_standard(name, schema)
        refuse_alike(name, schema.names)
        for role, column in _roles(columns, mapping):
            if column not in schema.names:
                if role in _OPTIONAL and mapping.columns is None:
                    continue
                raise refuse_column(name, column, len(schema.names))
            kind = _kind(schema.field(column).type)
            if kind not in _KINDS[role] or kinds.setdefault(role, kind) != kind:
                raise refuse_file(
                    f"{name}: column {column!r} has another type",
                    expected=f"{' or '.join(_KINDS[role])}, the same in every shard",
                    arrived=kind,
                )
    names = dict(_roles(columns, mapping))
    number = names.get("numeric_value") if "numeric_value" in kinds else None
    return Shards(
        **{role: _read_as(role, names.get(role), kinds.get(role)) for role in _KINDS},
        has_subject=_has_subject(sql_name(names["subject_id"]), kinds["subject_id"]),
        is_finite=f"isfinite({sql_name(number)}::DOUBLE)" if number else "NULL::BOOLEAN",
    )


def shard_columns(mapping: MedsMapping) -> dict[str, str]:
    """Return the shards' column of each role that the mapping asks for; some may be absent."""
    return dict(_roles(mapping.columns or _STANDARD, mapping))


def read_parents(path: Path, *, is_needed: bool) -> dict[str, tuple[str, ...]]:
    """Return each site code's parents from metadata/codes.parquet, in the event table's form.

    Args:
        path: of the file; without one there are no parents.
        is_needed: refuse when there is no such file.

    Raises:
        DataSourceError: a file that is not by the standard.
    """
    name = "metadata/codes.parquet"
    if not path.is_file():
        if is_needed:
            raise refuse_file(
                f"{name}: not there",
                expected="the standard's table of codes, as `map_to_parents` needs",
                arrived="no such file",
            )
        return {}
    schema = _schema(name, path)
    _check_standard(name, schema, is_codes=True)
    if "parent_codes" not in schema.names:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for code, parents in _code_rows(name, path):
        forms = tuple(form for form in map(parent_form, parents or ()) if form)
        if code and forms:
            found[code] = (*found.get(code, ()), *forms)
    return found


def _code_rows(name: str, path: Path) -> list[tuple[str | None, list[str] | None]]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows <= CODES_MAX:
            table = file.read(columns=["code", "parent_codes"])
            rows = zip(
                table.column("code").to_pylist(),
                (
                    [parent or "" for parent in item or ()]
                    for item in table.column("parent_codes").to_pylist()
                ),
                strict=True,
            )
            return list(rows)
    except (arrow.ArrowException, OSError, ValueError, MemoryError):
        pass
    raise refuse_file(
        f"{name}: the file is damaged or too large",
        expected=f"a whole Parquet file of at most {CODES_MAX:,} codes",
    )


def _roles(columns: MedsColumns, mapping: MedsMapping) -> list[tuple[str, str]]:
    roles = [(role, getattr(columns, role)) for role in MedsColumns.model_fields]
    roles.append(("unit", mapping.unit_column))
    return [(role, column) for role, column in roles if column is not None]


_WHOLE: Final = "a whole number"
_UNSIGNED: Final = "a whole number of 64 bits without sign"
_KINDS: Final = {
    "subject_id": (_WHOLE, _UNSIGNED, "text"),
    "time": ("a timestamp without zone", "a date"),
    "code": ("text",),
    "numeric_value": ("a 32-bit number", "a number", _WHOLE, _UNSIGNED),
    "unit": ("text",),
    "text_value": ("text",),
}


def _kind(kind: arrow.DataType) -> str:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_timestamp(kind):
        return "a timestamp without zone" if kind.tz is None else "a timestamp with a zone"
    if types.is_integer(kind):
        return _UNSIGNED if types.is_uint64(kind) else _WHOLE
    if types.is_float32(kind):
        return "a 32-bit number"
    if types.is_float64(kind) or types.is_decimal(kind):
        return "a number"
    return "a date" if types.is_date(kind) else "another type"


def _read_as(role: str, column: str | None, kind: str | None) -> str:
    if role == "numeric_value":
        if column is None or kind is None:
            return "NULL::DOUBLE"
        name = sql_name(column)
        return _recorded_decimal(name) if kind == "a 32-bit number" else f"{name}::DOUBLE"
    if column is None or kind is None:
        return "NULL::VARCHAR"
    if role == "subject_id" and kind == _WHOLE:
        return f"{sql_name(column)}::BIGINT"
    return f"{sql_name(column)}::{'TIMESTAMP' if role == 'time' else 'VARCHAR'}"


def _has_subject(name: str, kind: str) -> str:
    return f"{name} IS NOT NULL" if kind != "text" else f"coalesce({name}, '') <> ''"


def _recorded_decimal(name: str) -> str:
    """Return the decimal that was recorded and that a 32-bit number stands for.

    Below 100,000 such numbers lie closer together than hundredths do: at most one number of two
    decimals rounds to it, and nothing shorter does. Most are found so; for the others DuckDB's
    text, which is slow, is a decimal that names the same number.
    """
    hundredths = f"(round({name}::DOUBLE * 100) / 100)"
    return (
        f"CASE WHEN abs({name}) < 1e5 AND {hundredths}::FLOAT = {name} THEN {hundredths} "
        f"ELSE {name}::VARCHAR::DOUBLE END"
    )


def _schema(name: str, path: Path) -> arrow.Schema:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except (arrow.ArrowException, OSError, ValueError, MemoryError):
        pass
    raise refuse_file(
        f"{name}: not a Parquet file, or a damaged one", expected="a whole Parquet file"
    )


def _check_standard(name: str, schema: arrow.Schema, *, is_codes: bool = False) -> None:
    import pyarrow as arrow
    from flexible_schema.exceptions import SchemaValidationError
    from meds.schema import CodeMetadataSchema, DataSchema

    standard = CodeMetadataSchema if is_codes else DataSchema
    wanted: arrow.Schema = standard.schema()
    # Arrow's widths of text are not part of a Parquet file: what wrote it chose one.
    fields = [
        wanted.field(item.name)
        if item.name in wanted.names and _is_same_text(item.type, wanted.field(item.name).type)
        else item
        for item in schema
    ]
    found = ""
    try:
        standard.validate(arrow.schema(fields))
    except SchemaValidationError as error:
        found = str(error)  # names of columns and types only
    except (arrow.ArrowException, KeyError, ValueError, TypeError):
        found = "a schema that cannot be checked"
    if found:
        raise refuse_file(
            f"{name}: not the standard's schema",
            expected=", ".join(f"{item.name} {item.type}" for item in wanted),
            arrived=found[:400],
            todo="declare `columns` under [source], or export the data by the standard",
        )


def _is_same_text(found: Any, wanted: Any) -> bool:
    from pyarrow import types

    if types.is_list(wanted):
        is_list = types.is_list(found) or types.is_large_list(found)
        return is_list and _is_same_text(found.value_type, wanted.value_type)
    return _kind(wanted) == "text" and _kind(found) == "text"


def _check_dataset(path: Path) -> None:
    from flexible_schema.exceptions import SchemaValidationError, TableValidationError
    from meds.schema import DatasetMetadataSchema

    if not path.is_file():
        return
    try:
        if path.stat().st_size <= _METADATA_BYTES_MAX:
            DatasetMetadataSchema.validate(json.loads(path.read_bytes()))
            return
    except (SchemaValidationError, TableValidationError):
        pass
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    raise refuse_file(
        "metadata/dataset.json: not the standard's description of a data set",
        expected="a JSON object with the standard's fields",
        todo="correct that file, or export the data by the standard",
    )
