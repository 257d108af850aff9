"""A source's fingerprint follows what decides its events and nothing else; one end of its time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from common.errors import DataSourceError
from site_client.sources.events import EventSource, Exclusion
from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local
from site_client.sources.omop import OmopFolder
from site_client.sources.omop_duckdb import OmopDuckDB
from site_client.sources.snapshot import CLOCK_SLACK
from tests.lib import six_patients_meds, six_patients_vendor
from tests.lib.six_sources import SOURCES


@pytest.fixture(params=list(SOURCES))
def make(request: pytest.FixtureRequest) -> Callable[[Path], EventSource]:
    return SOURCES[request.param]


def test_a_touched_or_copied_source_has_the_same_fingerprint(
    make: Callable[[Path], EventSource], tmp_path: Path
) -> None:
    source = make(tmp_path / "here")
    before = source.fingerprint()
    assert source.fingerprint() == before
    for path in (tmp_path / "here").rglob("*"):
        os.utime(path, ns=(1, 1))
    assert source.fingerprint() == before
    shutil.copytree(tmp_path / "here", tmp_path / "away")
    shutil.rmtree(tmp_path / "here")
    shutil.move(tmp_path / "away", tmp_path / "here")
    assert source.fingerprint() == before


def test_a_changed_byte_of_any_file_changes_the_fingerprint(
    make: Callable[[Path], EventSource], tmp_path: Path
) -> None:
    source = make(tmp_path / "here")
    seen = {source.fingerprint()}
    files = [path for path in (tmp_path / "here").rglob("*") if path.is_file()]
    if isinstance(source, OmopDuckDB):
        files = [path for path in files if path.suffix == ".duckdb"]
    for path in files:
        whole, times = path.read_bytes(), path.stat()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        seen.add(source.fingerprint())
        path.write_bytes(whole)
    assert len(seen) == len(files) + 1


def test_what_is_not_read_changes_no_fingerprint(tmp_path: Path) -> None:
    for name in ("OMOP as CSV", "FHIR as NDJSON"):
        source = SOURCES[name](tmp_path / name)
        before = source.fingerprint()
        (tmp_path / name / "note.txt").write_text("not read")
        assert source.fingerprint() == before


def test_the_time_zone_and_the_declared_end_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    until = date(2300, 1, 1)
    fhir, omop, database = tmp_path / "fhir", tmp_path / "omop", tmp_path / "duckdb"
    SOURCES["FHIR as NDJSON"](fhir)
    SOURCES["OMOP as CSV"](omop)
    SOURCES["OMOP as DuckDB"](database)
    [file] = database.glob("*.duckdb")
    sources: list[EventSource] = [
        FhirFolder(fhir, "Europe/London"),
        FhirFolder(fhir, "Europe/Lisbon"),
        FhirFolder(fhir, "Europe/London", data_until=until),
        OmopFolder(omop),
        OmopFolder(omop, time_zone=ZoneInfo("Europe/London")),
        OmopFolder(omop, time_zone=ZoneInfo("Europe/Lisbon")),
        OmopFolder(omop, data_until=until),
        OmopDuckDB(file),
        OmopDuckDB(file, schema="other"),
        OmopDuckDB(file, time_zone=ZoneInfo("Europe/London")),
        OmopDuckDB(file, data_until=until),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)


def test_the_mapping_and_the_code_map_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    six_patients_meds.write_six(tmp_path / "meds")
    (tmp_path / "map.csv").write_text("code,standard_code\nLAB//7,LOINC/1-8\n")
    meds = [
        six_patients_meds.source(tmp_path),
        six_patients_meds.source(tmp_path, **six_patients_meds.SIX),
        six_patients_meds.source(tmp_path, code_map={"°C//1": "L/1"}),
        six_patients_meds.source(tmp_path, code_maps=["map.csv"]),
    ]
    seen = [source.fingerprint() for source in meds]
    (tmp_path / "map.csv").write_text("code,standard_code\nLAB//7,LOINC/1-9\n")
    seen.append(meds[-1].fingerprint())
    labs, others = six_patients_vendor.LABS, six_patients_vendor.OTHERS
    seen.append(six_patients_vendor.six(tmp_path).fingerprint())
    seen.append(six_patients_vendor.source(tmp_path, labs).fingerprint())
    vendor = six_patients_vendor.source(tmp_path, labs, {**others, "text": None})
    seen.append(vendor.fingerprint())
    text = (tmp_path / "map.csv").read_text()
    (tmp_path / "map.csv").write_text(text.replace("LOINC/", "SNOMED/", 1))
    seen.append(vendor.fingerprint())
    assert len(set(seen)) == len(seen)


def test_a_source_that_is_not_there_has_no_fingerprint(
    make: Callable[[Path], EventSource], tmp_path: Path
) -> None:
    source = make(tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(DataSourceError):
        source.fingerprint()


def test_every_reader_counts_what_lies_a_day_after_its_newest_file(
    make: Callable[[Path], EventSource], tmp_path: Path
) -> None:
    """The last event of all is at 03:00 on 25 December 2022, London's and universal time."""
    last = datetime(2022, 12, 25, 3, tzinfo=UTC)
    source = make(tmp_path / "here")
    for seconds, impossible in ((1, 0), (0, 1)):
        written = (last - CLOCK_SLACK + timedelta(seconds=seconds)).timestamp()
        for path in (tmp_path / "here").rglob("*"):
            os.utime(path, (written, written))
        scratch = tmp_path / str(seconds)
        scratch.mkdir()
        with open_local(scratch=scratch) as connection:
            counts = source.write_events(connection, "events", scratch=scratch)
        assert counts.excluded.get(Exclusion.TIME_IMPOSSIBLE, 0) == impossible
