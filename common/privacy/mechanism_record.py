"""Mechanism records as canonical data and back; an unknown kind is refused, never guessed."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common import limits
from common.canonical import Canonical, canonical_float
from common.errors import AccountingError
from common.privacy.mechanism import (
    PATIENT_HASH_PARTS,
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)

_Real = Annotated[str, Field(min_length=1, max_length=30)]
_PartEnd = Annotated[int, Field(ge=0, le=PATIENT_HASH_PARTS)]
_Part = Annotated[tuple[_PartEnd, _PartEnd], Field(strict=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _DpSgdShape(_Shape):
    kind: Literal["dp-sgd-steps"]
    noise_multiplier: _Real
    part: _Part
    sampling_probability: _Real
    steps: Annotated[int, Field(ge=1, le=limits.STEPS_TOTAL_MAX)]


class _GaussianShape(_Shape):
    kind: Literal["gaussian-vector"]
    noise_multiplier: _Real
    part: _Part


class _CountsShape(_Shape):
    kind: Literal["discrete-gaussian-counts"]
    noise_multiplier: _Real
    cells_per_patient_max: Annotated[int, Field(ge=1, le=limits.CELLS_PER_PATIENT_MAX)]
    part: _Part


_AnyShape: TypeAlias = _DpSgdShape | _GaussianShape | _CountsShape
_SHAPE: TypeAdapter[_AnyShape] = TypeAdapter(Annotated[_AnyShape, Field(discriminator="kind")])


def mechanism_to_record(mechanism: MechanismRecord) -> dict[str, Canonical]:
    """Return the canonical record of a mechanism."""
    record: dict[str, Canonical] = {
        "kind": mechanism.kind,
        "noise_multiplier": canonical_float(mechanism.noise_multiplier),
        "part": [mechanism.part.first, mechanism.part.stop],
    }
    if isinstance(mechanism, DpSgdSteps):
        record["sampling_probability"] = canonical_float(mechanism.sampling_probability)
        record["steps"] = mechanism.steps
    if isinstance(mechanism, DiscreteGaussianCounts):
        record["cells_per_patient_max"] = mechanism.cells_per_patient_max
    return record


def mechanism_from_record(record: Canonical) -> MechanismRecord:
    """Return the mechanism of a canonical record; raises `AccountingError`."""
    try:
        shape = _SHAPE.validate_python(record)
    except ValidationError:
        raise _refuse("a record of another kind or shape") from None
    part = PatientPart(*shape.part)
    if part.first >= part.stop:
        raise _refuse("patients [first, stop) with first not below stop")
    noise_multiplier = positive_real(shape.noise_multiplier)
    if isinstance(shape, _GaussianShape):
        return GaussianVector(noise_multiplier=noise_multiplier, part=part)
    if isinstance(shape, _CountsShape):
        return DiscreteGaussianCounts(
            noise_multiplier=noise_multiplier,
            cells_per_patient_max=shape.cells_per_patient_max,
            part=part,
        )
    return DpSgdSteps(
        noise_multiplier=noise_multiplier,
        sampling_probability=positive_real(shape.sampling_probability),
        steps=shape.steps,
        part=part,
    )


def positive_real(text: str) -> float:
    """Return a positive real number from its one decimal form; raises `AccountingError`."""
    try:
        value = float(text)
    except ValueError:
        raise _refuse("a number that does not read as one") from None
    if not value < float("inf") or value <= 0 or canonical_float(value) != text:
        raise _refuse("a number that is not positive, finite and in its canonical form")
    return value


def _refuse(arrived: str) -> AccountingError:
    return AccountingError(
        "not a mechanism record",
        expected="the record of dp-sgd-steps, gaussian-vector or discrete-gaussian-counts",
        arrived=arrived,
        todo="use one software version everywhere; a stored record must not be edited",
    )
