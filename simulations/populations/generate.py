"""A population as virtual sites of a simulation, and as files that a real site reads."""

from __future__ import annotations

import datetime
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

import pyarrow as pa

from common.errors import ConfigError, StoreError
from common.study.plan import StudyPlan
from simulations.patient_source import PatientSource
from simulations.populations.fhir import FhirWriter, fhir_source
from simulations.populations.hospital import Hospital
from simulations.populations.hospitals import differing_hospitals
from simulations.populations.meds import MedsWriter, meds_source
from simulations.populations.omop import OmopWriter, omop_source
from simulations.populations.patients import histories
from simulations.populations.records import Records, record
from simulations.populations.site_files import read_source, write_site_files
from simulations.populations.tables import TablesWriter, tables_source
from simulations.populations.truth import TruthWriter, truth_table, write_model
from site_client.sources.table import PatientTable

if TYPE_CHECKING:
    from simulations.virtual_site import VirtualSite


class Form(StrEnum):
    """In which form a hospital's data are written."""

    OMOP = "omop"
    FHIR = "fhir"
    MEDS = "meds"
    CSV = "csv"


class _Writer(Protocol):
    def add(self, records: Records) -> None: ...

    def close(self) -> None: ...


_WRITERS: Final[dict[Form, Callable[[Path], _Writer]]] = {
    Form.OMOP: OmopWriter,
    Form.FHIR: FhirWriter,
    Form.MEDS: MedsWriter,
    Form.CSV: TablesWriter,
}
_SOURCES: Final[dict[Form, Callable[[str, datetime.date], str]]] = {
    Form.OMOP: omop_source,
    Form.FHIR: fhir_source,
    Form.MEDS: meds_source,
    Form.CSV: tables_source,
}
DATA: Final = "data"
TRUTH: Final = "truth"


@dataclass(frozen=True)
class Written:
    """What was written of one hospital.

    Args:
        site_id: its id; the folder's name.
        patients, stays, events, deaths: numbers of records; a visit is one event.
    """

    site_id: str
    patients: int
    stays: int
    events: int
    deaths: int


class GeneratedPatients:
    """One hospital's patients, made anew wherever they are asked for.

    A plan's rows come through the site's own reader and features, from a data set in MEDS form that
    is deleted at once; the other forms give the same rows.

    Args:
        hospital: the dials.
        seed: of the population.
    """

    def __init__(self, hospital: Hospital, *, seed: int) -> None:
        self.hospital = hospital
        self.seed = seed
        self._read: dict[str, PatientTable] = {}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Hospital, int]]:
        """Return what makes the same patients in another process."""
        return _generated, (self.hospital, self.seed)

    def records(self) -> Iterator[Records]:
        """Yield the hospital's records with their histories, a block of patients at a time."""
        for history in histories(self.hospital, seed=self.seed):
            yield record(history)

    def truth(self) -> pa.Table:
        """Return what is true of each stay; see docs/synthetic-populations.md."""
        return pa.concat_tables(truth_table(records) for records in self.records())

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows; raises `DataSourceError`."""
        question = plan.model_dump_json(include={"cohort", "features", "label"})
        if question not in self._read:
            with tempfile.TemporaryDirectory(prefix="cohortium-generated-") as name:
                self.write(Path(name), Form.MEDS)
                source = PatientSource(read_source(Path(name)), folder=Path(name))
                self._read[question] = source.rows(plan)
        return self._read[question]

    def fingerprint(self) -> str:
        """Return a digest of what decides the patients: dials and seed."""
        text = f"{self.seed}\n{self.hospital.model_dump_json()}"
        return hashlib.sha256(b"generated patients\0" + text.encode()).hexdigest()

    def write(self, folder: Path, form: Form, *, truth: Path | None = None) -> Written:
        """Write a site's folder: `site.toml`, `data.toml` and the data in `data/`.

        Args:
            folder: new or empty.
            form: of the data.
            truth: file for what was true, outside of the folder; None: not written.

        Raises:
            StoreError: it cannot be written, or something stands there.
        """
        _check_empty(folder)
        try:
            return self._write(folder, form, truth)
        except OSError as error:
            raise StoreError(
                "the generated patients cannot be written",
                expected=f"a writable folder {folder}",
                arrived=error.strerror or type(error).__name__,
                todo="free disk space or choose another folder",
            ) from None

    def _write(self, folder: Path, form: Form, truth: Path | None) -> Written:
        folder.mkdir(parents=True, exist_ok=True)
        writers = [_WRITERS[form](folder / DATA)]
        if truth is not None:
            writers.append(TruthWriter(truth))
        stays = events = deaths = 0
        for records in self.records():
            for writer in writers:
                writer.add(records)
            stays += len(records.history.stays)
            dead = int((records.died_s >= 0).sum())
            deaths += dead
            events += len(records.events) + len(records.contacts.patient) + dead
        for writer in writers:
            writer.close()
        until = self.hospital.taken_on + datetime.timedelta(days=1)
        write_site_files(folder, self.hospital, _SOURCES[form](DATA, until))
        return Written(self.hospital.site_id, self.hospital.patients, stays, events, deaths)


def _generated(hospital: Hospital, seed: int) -> GeneratedPatients:
    return GeneratedPatients(hospital, seed=seed)


class Population(Sequence["VirtualSite"]):
    """Hospitals of one seed: the sites of a simulation, in the order of the hospitals.

    Args:
        hospitals: each with its own site id.
        seed: of all.

    Raises:
        ConfigError: two hospitals have one site id.
    """

    def __init__(self, hospitals: Sequence[Hospital], *, seed: int) -> None:
        if len({item.site_id for item in hospitals}) < len(hospitals):
            raise ConfigError(
                "the hospitals are refused",
                expected="a site id of its own for each",
                arrived="the same id twice",
                todo="give each hospital another site_id",
            )
        self.hospitals = tuple(hospitals)
        self.seed = seed
        self._patients = [GeneratedPatients(item, seed=seed) for item in hospitals]

    def __len__(self) -> int:
        """Number of hospitals."""
        return len(self.hospitals)

    @overload
    def __getitem__(self, place: int) -> VirtualSite: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[VirtualSite]: ...

    def __getitem__(self, place: int | slice) -> VirtualSite | Sequence[VirtualSite]:
        """Return one site, or some."""
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        # PyTorch comes with it, which only who trains needs.
        from simulations.virtual_site import VirtualSite

        hospital = self.hospitals[place]
        return VirtualSite(hospital.site_id, hospital.declared_cohort_size, self._patients[place])

    def patients(self, site_id: str) -> GeneratedPatients:
        """Return one hospital's patients; raises `ConfigError` where there is no such hospital."""
        for found in self._patients:
            if found.hospital.site_id == site_id:
                return found
        raise ConfigError(
            f"there is no hospital {site_id!r}",
            expected=f"one of {', '.join(item.site_id for item in self.hospitals)}",
            arrived=repr(site_id),
            todo="name one of these",
        )

    def write(
        self, folder: Path, form: Form, *, progress: Callable[[Written], None] = lambda _: None
    ) -> list[Written]:
        """Write a folder for each hospital, and what was true under `truth/`.

        Args:
            folder: new or empty.
            form: of the data.
            progress: called after each hospital.

        Raises:
            StoreError: it cannot be written, or something stands there.
        """
        _check_empty(folder)
        found = []
        for patients in self._patients:
            site_id = patients.hospital.site_id
            truth = folder / TRUTH / f"{site_id}.parquet"
            found.append(patients.write(folder / site_id, form, truth=truth))
            progress(found[-1])
        write_model(folder / TRUTH / "model.json", self.hospitals, seed=self.seed)
        return found


def generate(
    hospitals: int | Sequence[Hospital], *, seed: int = 1, patients: int = 1000
) -> Population:
    """Return a population of generated patients.

    Args:
        hospitals: their dials; or how many hospitals that differ in ways drawn by the seed.
        seed: 0 or more; the same gives the same patients.
        patients: mean number of a hospital's patients, where hospitals are drawn.

    Raises:
        ConfigError: two hospitals have one site id.
    """
    if isinstance(hospitals, int):
        hospitals = differing_hospitals(hospitals, seed=seed, patients=patients)
    return Population(hospitals, seed=seed)


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(
            "the generated patients are not written over something else",
            expected=f"a new or empty folder {folder}",
            arrived="one with something in it",
            todo="choose another folder, or empty this one",
        )
