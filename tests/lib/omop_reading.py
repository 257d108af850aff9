"""Reads an OMOP folder of the six patients, or is refused without a cell in the message."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from common.errors import DataSourceError
from site_client.sources.events import SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop import OmopFolder
from tests.lib.six_patients import Event, events_in
from tests.lib.six_patients_omop import Tables, write_csv

MARKER = "Xq7Zsecret"
"""A cell of a patient's row; no message may show it."""


class Read(NamedTuple):
    events: list[Event]
    counts: SourceCounts

    def of(self, code: str) -> list[Event]:
        return [event for event in self.events if event.code == code]


def read(folder: Path, scratch: Path, *, time_zone: ZoneInfo | None = None) -> Read:
    scratch.mkdir(exist_ok=True)
    with open_local(scratch=scratch) as connection:
        source = OmopFolder(folder, time_zone=time_zone)
        counts = source.write_events(connection, "events", scratch=scratch)
        return Read(events_in(connection, "events"), counts)


def read_tables(tables: Tables, tmp_path: Path) -> Read:
    return read(write_csv(tmp_path / "cdm", tables), tmp_path / "scratch")


def refused(folder: Path, scratch: Path) -> DataSourceError:
    with pytest.raises(DataSourceError) as caught:
        read(folder, scratch)
    error = caught.value
    said = str(error) + repr(error) + repr(error.__cause__) + repr(error.__context__)
    assert MARKER not in said + repr(error.as_record())
    return error
