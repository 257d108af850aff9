"""A MEDS data set that grew by files: which patients the new files touch, and their events apart.

Only growth is told: a file that was changed or taken away had patients and events that nobody can
ask for any more, and then everything is read again.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as arrow
from pyarrow import parquet

from site_client.sources.file_refusal import refuse_file
from site_client.sources.local_database import open_local
from site_client.sources.meds import MedsFolder
from site_client.sources.source_files import run_sql, sql_files, sql_name, sql_text
from site_client.sources.source_manifest import name_digest

TOUCHED_SHARE_MAX: Final = 1 / 3
"""Of the records: with more, the whole is read with less work than a part."""
_PLACE: Final = "the MEDS files"


@dataclass(frozen=True)
class MedsGrowth:
    """What new files touch.

    Args:
        before: the data set as it was, of the touched patients alone.
        now: the same with the new files.
        patients: who is touched, as the event table names them.
    """

    before: MedsFolder
    now: MedsFolder
    patients: tuple[str, ...]


def growth_of(
    source: MedsFolder,
    *,
    known: Collection[str],
    end_before: datetime.datetime,
    scratch: Path,
) -> MedsGrowth | None:
    """Return what a data set's new files touch.

    Args:
        source: as it is now; its known files are as they were.
        known: `name_digest` of the files that it had before.
        end_before: the first moment that was impossible then.
        scratch: a folder of this build, which must outlast the answer's use.

    Returns:
        None where reading the whole is right: no new file, too many touched patients, or an old
        event of a time that was impossible then and is not now, or the other way round.

    Raises:
        DataSourceError: a file is damaged.
    """
    old = [item for item in source.shards() if name_digest(item[0]) in known]
    new = [item for item in source.shards() if name_digest(item[0]) not in known]
    if not old or not new:
        return None
    end = source.end()
    with open_local(scratch=scratch) as connection:

        def ask(statement: str) -> list[tuple[object, ...]]:
            return run_sql(connection, statement, place=_PLACE)

        columns = _columns_of(source, old)
        subject, time = sql_name(columns["subject_id"]), sql_name(columns["time"])
        first, last = sorted((end_before, end))
        between = f"{time} >= {_moment(first)} AND {time} < {_moment(last)}"
        if first != last and ask(f"SELECT 1 FROM {_read(old)} WHERE {between} LIMIT 1"):  # noqa: S608
            return None
        ask(
            f"CREATE TABLE touched AS SELECT DISTINCT {subject} AS {subject} "  # noqa: S608
            f"FROM {_read(new)} WHERE {subject} IS NOT NULL"
        )
        of_touched = f"FROM {_read(old)} SEMI JOIN touched USING ({subject})"
        [(records,)] = ask(f"SELECT count(*) {of_touched}")
        if int(str(records)) > TOUCHED_SHARE_MAX * _records(old):
            return None
        path = scratch / "touched.parquet"
        selected = ", ".join(sql_name(name) for name in dict.fromkeys(columns.values()))
        ask(f"COPY (SELECT {selected} {of_touched}) TO {sql_text(str(path))} (FORMAT parquet)")
        patients = ask(f"SELECT {subject}::VARCHAR FROM touched")  # noqa: S608
    part = ("touched.parquet", path)
    return MedsGrowth(
        before=source.of_shards([part], end=end_before),
        now=source.of_shards([part, *new], end=end),
        patients=tuple(str(item) for (item,) in patients),
    )


def _columns_of(source: MedsFolder, shards: list[tuple[str, Path]]) -> dict[str, str]:
    """Return the columns by role that some shard has."""
    present = set().union(*(_metadata(*shard).schema.to_arrow_schema().names for shard in shards))
    return {role: name for role, name in source.columns().items() if name in present}


def _records(shards: list[tuple[str, Path]]) -> int:
    return sum(int(_metadata(*shard).num_rows) for shard in shards)


def _metadata(name: str, path: Path) -> parquet.FileMetaData:
    try:
        return parquet.read_metadata(path)
    except (arrow.ArrowException, OSError, ValueError, MemoryError):
        pass
    raise refuse_file(
        f"{name}: not a Parquet file, or a damaged one", expected="a whole Parquet file"
    )


def _read(shards: list[tuple[str, Path]]) -> str:
    files = sql_files([path for _, path in shards])
    return f"read_parquet({files}, union_by_name = true, hive_partitioning = false)"


def _moment(time: datetime.datetime) -> str:
    return f"TIMESTAMP '{time.isoformat(sep=' ')}'"
