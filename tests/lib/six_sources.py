"""The six fictional patients in every format that a folder or a file can have, ready to be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from site_client.sources.events import EventSource
from site_client.sources.fhir import FhirFolder
from site_client.sources.omop import OmopFolder
from site_client.sources.omop_duckdb import OmopDuckDB
from tests.lib import six_patients_meds, six_patients_vendor
from tests.lib.fhir_writer import write_bundles, write_ndjson
from tests.lib.six_patients_omop import six_patients_tables, write_csv, write_duckdb, write_parquet

ZONE = "Europe/London"
"""Of the site; the FHIR writer's offsets are of another: a reader that drops them differs."""


def _omop(write: Callable[..., Path]) -> Callable[[Path], EventSource]:
    return lambda folder: OmopFolder(write(folder, six_patients_tables()))


def _fhir(write: Callable[[Path], None]) -> Callable[[Path], EventSource]:
    def source(folder: Path) -> EventSource:
        folder.mkdir(exist_ok=True)
        write(folder)
        return FhirFolder(folder, ZONE)

    return source


def _duckdb(folder: Path) -> EventSource:
    folder.mkdir(exist_ok=True)
    return OmopDuckDB(write_duckdb(folder, six_patients_tables()))


def _meds(folder: Path) -> EventSource:
    six_patients_meds.write_six(folder / "meds")
    return six_patients_meds.source(folder, **six_patients_meds.SIX)


def _vendor(folder: Path) -> EventSource:
    folder.mkdir(exist_ok=True)
    return six_patients_vendor.six(folder)


SOURCES: dict[str, Callable[[Path], EventSource]] = {
    "OMOP as CSV": _omop(write_csv),
    "OMOP as Parquet": _omop(write_parquet),
    "OMOP as DuckDB": _duckdb,
    "FHIR as NDJSON": _fhir(write_ndjson),
    "FHIR as bundles": _fhir(write_bundles),
    "MEDS": _meds,
    "a vendor's tables": _vendor,
}
"""Each writes its files into an empty or new folder and returns the source."""
