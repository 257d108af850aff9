"""Codes, units and times as DuckDB takes them: tables and numbers, never text put into a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from site_client.standardize.units import Conversion

if TYPE_CHECKING:
    import duckdb


def microseconds(span: timedelta) -> int:
    """Return a span as DuckDB's `to_microseconds` takes it."""
    return span // timedelta(microseconds=1)


def put_table(connection: duckdb.DuckDBPyConnection, name: str, columns: pa.Table) -> None:
    """Make a temporary table; `name` is a word of ours."""
    connection.register("put_table_columns", columns)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM put_table_columns")
    connection.unregister("put_table_columns")


def put_codes(connection: duckdb.DuckDBPyConnection, name: str, codes: Iterable[str]) -> None:
    """Make a temporary table of codes."""
    put_table(connection, name, pa.table({"code": pa.array(sorted(codes), pa.string())}))


def put_conversions(
    connection: duckdb.DuckDBPyConnection, name: str, conversions: Mapping[str, Conversion] | None
) -> None:
    """Make a temporary table of units (unit, factor, shift)."""
    units = dict(conversions or {})
    put_table(
        connection,
        name,
        pa.table(
            {
                "unit": pa.array(list(units), pa.string()),
                "factor": pa.array([item.factor for item in units.values()], pa.float64()),
                "shift": pa.array([item.offset for item in units.values()], pa.float64()),
            }
        ),
    )
