"""DuckDB inside the agent: bounded, and with no way to fetch or load anything from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

THREADS_MAX: Final = 2
"""Of one pass over a source: a hospital's server has other work."""
_NOWHERE: Final = "/dev/null/none"
"""A folder that cannot be: a statement INSTALL ends there, before it would ask the network."""


def open_local(
    *, scratch: Path, memory_mb_max: int = 4000, threads_max: int = THREADS_MAX
) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that spills to `scratch`.

    No extension can be installed, neither on demand nor by a statement: remote paths (http, s3)
    need one, so none opens. The configuration is locked: no statement can lift this.

    Args:
        scratch: a folder of this build alone.
        memory_mb_max: of DuckDB's own buffers.
        threads_max: worker threads.
    """
    connection = duckdb.connect(
        config={
            "memory_limit": f"{memory_mb_max}MB",
            "threads": threads_max,
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "custom_extension_repository": _NOWHERE,
            "extension_directory": _NOWHERE,
            "preserve_insertion_order": False,
        }
    )
    connection.execute("SET enable_progress_bar = false")  # it would stand in a command's answer
    connection.execute("SET lock_configuration = true")
    return connection
