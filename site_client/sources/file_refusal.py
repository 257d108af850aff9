"""The refusal of a source's file; apart from what reads files, which loads DuckDB and Arrow."""

from __future__ import annotations

from common.errors import DataSourceError


def refuse_file(
    what: str,
    *,
    expected: str,
    arrived: str = "something else (values are never shown)",
    todo: str = "export the file again, or correct the mapping in site.toml",
) -> DataSourceError:
    """Return the refusal of a file."""
    return DataSourceError(what, expected=expected, arrived=arrived, todo=todo)
