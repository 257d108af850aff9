"""Reading a damaged or wrong source: success or one `DataSourceError` that names no value."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DataSourceError
from site_client.sources.events import EventSource, SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.source_files import run_sql

MARKER = "Zz9MARKERzZ"
"""A cell of a patient's row; no message may show it."""


def read(source: EventSource, scratch: Path) -> SourceCounts:
    """Write the event table and read all of it."""
    with open_local(scratch=scratch, memory_mb_max=1000, threads_max=1) as connection:
        counts = source.write_events(connection, "events", scratch=scratch)
        run_sql(connection, "SELECT * FROM events", place="events")
    return counts


def refusal(source: EventSource, scratch: Path, *, hidden: tuple[str, ...] = ()) -> DataSourceError:
    """Return the one refusal of a source, after checking that no cell stands in it."""
    with pytest.raises(DataSourceError) as caught:
        read(source, scratch)
    error: BaseException | None = caught.value
    while error is not None:
        for text in (MARKER, *hidden):
            assert text not in str(error)
            assert text not in repr(error.args)
        assert error.__cause__ is None
        error = error.__context__
    return caught.value


def mutate_and_read(
    make: Callable[[], EventSource], files: list[Path], scratch: Path, *, times: int, seed: int
) -> int:
    """Change, cut or repeat bytes of the files, read each time; return how many were refused."""
    chance = random.Random(seed)
    whole = {path: path.read_bytes() for path in files}
    refused = 0
    for _ in range(times):
        path = chance.choice(files)
        data = bytearray(whole[path])
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(data) or 1)
            match chance.randrange(4):
                case 0:
                    data[place : place + 1] = bytes([chance.randrange(256)])
                case 1:
                    data[place] ^= 1 << chance.randrange(8)
                case 2:
                    del data[place : place + chance.choice((1, 5, len(data)))]
                case _:
                    data[place:place] = data[max(0, place - 7) : place + 1]
            if not data:
                break
        path.write_bytes(data)
        try:
            read(make(), scratch)
        except DataSourceError as error:
            # What is chained to it would quote the file.
            assert (error.__cause__, error.__context__) == (None, None)
            refused += 1
        path.write_bytes(whole[path])
    return refused
