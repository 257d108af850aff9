"""Every code that a generated record can have, and what it means in standard words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from simulations.populations.variables import (
    CONDITIONS,
    DRUGS,
    MEASUREMENTS,
    SMOKING_CODE,
    Measurement,
)

Kind = Literal["laboratory", "vital", "condition", "drug", "answer"]
LOCAL: Final = "LAB"
"""Vocabulary of the hospital's own codes."""


@dataclass(frozen=True)
class Code:
    """One code as recorded.

    Args:
        kind: of record.
        name: entry of the feature catalogue.
        vocabulary, code: as recorded; `LOCAL` for the hospital's own.
        meaning: the standard code that the hospital's map gives for an own one; None: no map does.
        standard: vocabulary and code of OMOP's standard concept; None: there is none.
    """

    kind: Kind
    name: str
    vocabulary: str
    code: str
    meaning: str | None
    standard: tuple[str, str] | None

    @property
    def is_local(self) -> bool:
        """Whether it is the hospital's own."""
        return self.vocabulary == LOCAL

    @property
    def event_code(self) -> str:
        """Vocabulary and code as a plan writes them."""
        return f"{self.vocabulary}/{self.code}"


def without_dot(code: str) -> str:
    """Return an ICD code as systems write it that leave dots out."""
    return code.replace(".", "")


def _all_codes() -> Iterator[Code]:
    for item in MEASUREMENTS:
        kind: Kind = "vital" if item.is_vital else "laboratory"
        loincs = dict.fromkeys(code for unit in item.units.values() for code in unit.loinc)
        for code in loincs:
            yield Code(kind, item.name, "LOINC", code, f"LOINC/{code}", ("LOINC", code))
        usual = next(iter(loincs))
        yield Code(kind, item.name, LOCAL, item.local_code, f"LOINC/{usual}", ("LOINC", usual))
        yield Code(kind, item.name, LOCAL, unmapped_code(item), None, None)
    for condition in CONDITIONS:
        standard = ("SNOMED", condition.codes["SNOMED"])
        for vocabulary, code in condition.codes.items():
            for written in dict.fromkeys((code, without_dot(code))):
                meaning = f"{vocabulary}/{written}"
                yield Code("condition", condition.name, vocabulary, written, meaning, standard)
    for drug in DRUGS:
        standard = ("RxNorm", drug.codes["RxNorm"])
        for vocabulary, code in drug.codes.items():
            yield Code("drug", drug.name, vocabulary, code, f"{vocabulary}/{code}", standard)
    smoking = ("LOINC", SMOKING_CODE)
    yield Code("answer", "tobacco_smoking", *smoking, f"LOINC/{SMOKING_CODE}", smoking)


def unmapped_code(item: Measurement) -> str:
    """Return the code of a measurement that no map explains."""
    return f"{item.local_code}-UNLISTED"


CODES: Final = tuple(_all_codes())
"""A recorded event has a place in it."""
PLACES: Final = {(item.name, item.vocabulary, item.code): n for n, item in enumerate(CODES)}
"""Name, vocabulary and code to the place in `CODES`."""
