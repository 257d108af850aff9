"""Rows of a plan as Parquet: raw values in the plan's units, before clipping and scaling.

`rows`: subject_id, index_time (microseconds, wall clock), label, and `feature.NAME` for each
feature: float64 with NaN for missing, a fixed-size list of them for a feature in time bins, or the
level's index with -1 for missing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from site_client.features.store_entry import RowsFile, damaged
from site_client.sources.table import FeatureCounts, PatientTable

_PREFIX: Final = "feature."
_COMPRESSION: Final = "zstd"
_LEVEL: Final = 1
_HEX_IN_NAME: Final = 16


def rows_to_arrow(table: PatientTable, index_time: npt.NDArray[np.datetime64]) -> pa.Table:
    """Return the rows as the Parquet file has them."""
    columns: dict[str, pa.Array] = {
        "subject_id": pa.array(table.subject_ids, pa.string()),
        "index_time": pa.array(index_time.astype("datetime64[us]")),
        "label": pa.array(table.label),
    }
    for name in table.counts:  # in the plan's order
        if name in table.numeric:
            columns[_PREFIX + name] = _numbers(table.numeric[name])
        else:
            columns[_PREFIX + name] = pa.array(table.levels[name].astype(np.int32))
    return pa.table(columns)


def rows_of_arrow(
    rows: pa.Table, counts: dict[str, FeatureCounts]
) -> tuple[PatientTable, npt.NDArray[np.datetime64]]:
    """Return rows and index dates of `rows_to_arrow`'s table."""
    rows = rows.combine_chunks()
    numeric: dict[str, npt.NDArray[np.float64]] = {}
    levels: dict[str, npt.NDArray[np.int64]] = {}
    for name in counts:
        column = rows.column(_PREFIX + name)
        if pa.types.is_integer(column.type):
            levels[name] = column.to_numpy().astype(np.int64)
        elif pa.types.is_floating(column.type):
            numeric[name] = column.to_numpy()
        else:
            flat = column.combine_chunks().flatten().to_numpy()
            numeric[name] = flat.reshape(len(rows), column.type.list_size)
    table = PatientTable(
        subject_ids=tuple(rows.column("subject_id").to_pylist()),
        numeric=numeric,
        levels=levels,
        label=rows.column("label").to_numpy(),
        counts=counts,
        unlabelled=0,
    )
    return table, rows.column("index_time").to_numpy()


def write_parquet(table: pa.Table, folder: Path, *, what: str) -> RowsFile:
    """Write a table, whole and on disk on return, under a name that its content decides.

    Args:
        table: any.
        folder: of the entry.
        what: first part of the name, a-z.

    Raises:
        OSError: no space, or no permission.
    """
    partial = folder / f"{what}.partial"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    with os.fdopen(descriptor, "r+b") as stream:
        # Floats have few repeats; the dictionary of each would be made and thrown away.
        words = [field.name for field in table.schema if not _has_floats(field.type)]
        parquet.write_table(
            table,
            stream,
            compression=_COMPRESSION,
            compression_level=_LEVEL,
            use_dictionary=words,
            write_statistics=False,
        )
        stream.flush()
        os.fsync(stream.fileno())
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
    name = f"{what}-{digest[:_HEX_IN_NAME]}.parquet"
    partial.replace(folder / name)
    return RowsFile(name=name, size_bytes=size, sha256=digest)


def check_parquet(folder: Path, file: RowsFile) -> None:
    """Raise `DataSourceError` unless the file is as it was written."""
    try:
        with (folder / file.name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        digest = ""
    if digest != file.sha256:
        raise damaged("a Parquet file")


def read_parquet(folder: Path, file: RowsFile) -> pa.Table:
    """Return a table that was checked with `check_parquet`; raises `DataSourceError`."""
    check_parquet(folder, file)
    try:
        return parquet.read_table(folder / file.name, partitioning=None)
    except (OSError, pa.ArrowException):
        pass
    raise damaged("a Parquet file")


def _numbers(values: npt.NDArray[np.float64]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)  # NaN stays NaN: every bit of a float is kept
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1]
    )


def _has_floats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind))
