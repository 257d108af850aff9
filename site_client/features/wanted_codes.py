"""Codes, units and times as DuckDB takes them: tables and numbers, never text put into a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from common.units.conversions import Conversion

if TYPE_CHECKING:
    import duckdb


def microseconds(span: timedelta) -> int:
    """Return a span as DuckDB's `to_microseconds` takes it."""
    return span // timedelta(microseconds=1)


def put_table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, tuple[str, list[Any]]]
) -> None:
    """Make a temporary table; `name`, columns' names and SQL types are words of ours.

    Args:
        connection: to have it.
        name: of the table.
        columns: SQL type and values of each, by name.
    """
    # As parameters: to take a table from Arrow or Python, DuckDB first imports pandas.
    selected = ", ".join(f"unnest(${key}::{kind}[]) AS {key}" for key, (kind, _) in columns.items())
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {selected}",
        {key: values for key, (_, values) in columns.items()},
    )


def put_codes(connection: duckdb.DuckDBPyConnection, name: str, codes: Iterable[str]) -> None:
    """Make a temporary table of codes."""
    put_table(connection, name, {"code": ("VARCHAR", sorted(codes))})


def put_conversions(
    connection: duckdb.DuckDBPyConnection, name: str, conversions: Mapping[str, Conversion] | None
) -> None:
    """Make a temporary table of units (unit, factor, shift)."""
    units = dict(conversions or {})
    put_table(
        connection,
        name,
        {
            "unit": ("VARCHAR", list(units)),
            "factor": ("DOUBLE", [item.factor for item in units.values()]),
            "shift": ("DOUBLE", [item.offset for item in units.values()]),
        },
    )
