"""Generated records as FHIR R4 resources in NDJSON, the files of a bulk export.

Lines are joined column by column: no text of ours needs escaping, and a million lines take seconds.
Every patient is marked as test data (HL7 v3 ActReason, HTEST).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import compute

from simulations.populations.codes import CODES
from simulations.populations.columns import (
    births,
    instants,
    numbers,
    of_events,
    subject_ids,
    words,
)
from simulations.populations.people import Whole
from simulations.populations.records import Events, Records
from simulations.populations.units import UNITS
from simulations.populations.variables import SMOKING

_SYSTEMS: Final = {
    "SNOMED": "http://snomed.info/sct",
    "LOINC": "http://loinc.org",
    "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ICD10": "http://hl7.org/fhir/sid/icd-10",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10GM": "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
    "ICD9CM": "http://hl7.org/fhir/sid/icd-9-cm",
    "ATC": "http://www.whocc.no/atc",
    "LAB": "urn:generated:laboratory",
}
_UCUM: Final = "http://unitsofmeasure.org"
_ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_CLASSES: Final = ("IMP", "EMER", "AMB")
_META: Final = (
    '"meta":{"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason",'
    '"code":"HTEST"}]}'
)
_RESOURCE_OF: Final = {
    "laboratory": "Observation",
    "vital": "Observation",
    "condition": "Condition",
    "drug": "MedicationAdministration",
    "answer": "Observation",
}
_RESOURCES: Final = ("Observation", "Condition", "MedicationAdministration")
_LINES_AT_ONCE: Final = 100_000
"""A line takes several times as much memory as the record it is made of."""


class FhirWriter:
    """Writes one hospital.

    Args:
        folder: new or empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blocks = 0
        self._written = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, records: Records) -> None:
        """Write a block of patients."""
        self._write("Patient", *_patients(records))
        contacts = records.contacts
        subject = pa.array(subject_ids(records.history.patients)[contacts.patient])
        self._write(
            "Encounter",
            f',"status":"finished","class":{{"system":"{_ACT_CODE}","code":"',
            words(contacts.visit_class, _CLASSES),
            '"},"subject":{"reference":"Patient/',
            subject,
            '"},"period":{"start":"',
            _zoned(contacts.start_s),
            '","end":"',
            _zoned(contacts.end_s),
            '"}}\n',
        )
        subject, events = of_events(records), records.events
        for first in range(0, len(events), _LINES_AT_ONCE):
            rows = slice(first, first + _LINES_AT_ONCE)
            self._add_events(subject[rows], events.part(rows))
        self._blocks += 1

    def close(self) -> None:
        """Everything is written already."""

    def _add_events(self, subjects: Whole, events: Events) -> None:
        resources = np.array([_RESOURCES.index(_RESOURCE_OF[item.kind]) for item in CODES])
        resource = resources[events.code]
        subject, when = pa.array(subjects), _zoned(events.time_s)
        concepts = words(events.code, [_concept(place) for place in range(len(CODES))])
        value = compute.binary_join_element_wise(
            '"valueQuantity":{"value":',
            numbers(events.value).cast(pa.string()),
            f',"system":"{_UCUM}","code":"',
            words(events.unit, UNITS),
            '"}',
            "",
        )
        answered = words(
            events.answer,
            [
                f'"valueCodeableConcept":{{"coding":[{{"system":"{_SYSTEMS["SNOMED"]}",'
                f'"code":"{code}"}}]}}'
                for code in SMOKING.values()
            ],
        )
        said = compute.coalesce(value, answered)
        for kind, begins, time, ends in (
            ("Observation", ',"status":"final","code":', "effectiveDateTime", said),
            ("Condition", ',"code":', "recordedDate", None),
            (
                "MedicationAdministration",
                ',"status":"completed","medicationCodeableConcept":',
                "effectiveDateTime",
                None,
            ),
        ):
            rows = pa.array(np.flatnonzero(resource == _RESOURCES.index(kind)))
            self._write(
                kind,
                begins,
                concepts.take(rows),
                ',"subject":{"reference":"Patient/',
                subject.take(rows),
                f'"}},"{time}":"',
                when.take(rows),
                '"' if ends is None else '",',
                "" if ends is None else ends.take(rows),
                "}\n",
            )

    def _write(self, kind: str, *parts: pa.Array | str) -> None:
        rows = next(len(part) for part in parts if not isinstance(part, str))
        if kind == "Patient":
            begins: tuple[pa.Array | str, ...] = (f'{{"resourceType":"{kind}",{_META}',)
        else:
            names = pa.array(np.arange(self._written, self._written + rows))
            begins = (
                f'{{"resourceType":"{kind}","id":"generated-',
                names.cast(pa.string()),
                '"',
            )
            self._written += rows
        columns = [part if isinstance(part, str) else part.cast(pa.string()) for part in parts]
        lines = compute.binary_join_element_wise(*begins, *columns, "")
        path = self._folder / f"{kind}.{self._blocks:03d}.ndjson"
        with path.open("ab") as stream:
            for chunk in lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]:
                # Each line ends itself, so that the array's own buffer is the file.
                if len(chunk):
                    stream.write(memoryview(chunk.buffers()[2])[: _bytes(chunk)])


def fhir_source(path: str, data_until: datetime.date) -> str:
    """Return `[source]` of site.toml."""
    mapped = ", ".join(
        f'"{_SYSTEMS[item.vocabulary]}|{item.code}" = "{item.meaning}"'
        for item in CODES
        if item.is_local and item.meaning
    )
    return (
        f'[source]\nkind = "fhir"\npath = "{path}"\ntime_zone = "UTC"\n'
        f"data_until = {data_until}\ncode_map = {{ {mapped} }}\n"
    )


def _bytes(lines: pa.Array) -> int:
    return int(compute.sum(compute.binary_length(lines)).as_py())


def _patients(records: Records) -> tuple[pa.Array | str, ...]:
    patients = records.history.patients
    subject = pa.array(subject_ids(patients)).cast(pa.string())
    died = compute.binary_join_element_wise(
        ',"deceasedDateTime":"', _zoned(records.died_s), '"', ""
    )
    return (
        ',"id":"',
        subject,
        '","name":[{"text":"Generated patient ',
        subject,
        '"}],"gender":"',
        words(patients.is_male.astype(np.int64), ["female", "male"]),
        '","birthDate":"',
        births(patients),
        '"',
        compute.fill_null(died, ""),
        "}\n",
    )


def _concept(place: int) -> str:
    item = CODES[place]
    return f'{{"coding":[{{"system":"{_SYSTEMS[item.vocabulary]}","code":"{item.code}"}}]}}'


def _zoned(time_s: Whole) -> pa.Array:
    text = compute.replace_substring(instants(time_s), " ", "T")
    return compute.binary_join_element_wise(text, "Z", "")
