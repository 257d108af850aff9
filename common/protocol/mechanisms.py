"""Mechanism records to canonical form and back; an unknown kind is refused, never guessed."""

from __future__ import annotations

from common.canonical import Canonical, canonical_float
from common.errors import ProtocolError
from common.privacy.mechanism import (
    PATIENT_HASH_PARTS,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.protocol.fields import Fields


def mechanism_to_record(mechanism: MechanismRecord) -> dict[str, Canonical]:
    """Return the canonical record of a mechanism."""
    part: Canonical = [mechanism.part.first, mechanism.part.stop]
    if isinstance(mechanism, DpSgdSteps):
        return {
            "kind": mechanism.kind,
            "noise_multiplier": canonical_float(mechanism.noise_multiplier),
            "part": part,
            "sampling_probability": canonical_float(mechanism.sampling_probability),
            "steps": mechanism.steps,
        }
    return {
        "kind": mechanism.kind,
        "noise_multiplier": canonical_float(mechanism.noise_multiplier),
        "part": part,
    }


def mechanism_from_record(record: Canonical) -> MechanismRecord:
    """Return the mechanism of a canonical record; raises `ProtocolError`."""
    fields = Fields(record, "mechanism record")
    kind = fields.text("kind")
    noise_multiplier = fields.real("noise_multiplier", minimum=1e-6, maximum=1e9)
    bounds = fields.integers("part", count=2, minimum=0, maximum=PATIENT_HASH_PARTS)
    if bounds[0] >= bounds[1]:
        raise fields.refuse("part", "[first, stop) with first below stop")
    part = PatientPart(first=bounds[0], stop=bounds[1])
    mechanism: MechanismRecord
    if kind == DpSgdSteps.kind:
        mechanism = DpSgdSteps(
            noise_multiplier=noise_multiplier,
            sampling_probability=fields.real("sampling_probability", minimum=1e-12, maximum=1.0),
            steps=fields.integer("steps", minimum=1, maximum=10**9),
            part=part,
        )
    elif kind == GaussianVector.kind:
        mechanism = GaussianVector(noise_multiplier=noise_multiplier, part=part)
    else:
        raise ProtocolError(
            "a mechanism record is of an unknown kind",
            expected=f"{DpSgdSteps.kind} or {GaussianVector.kind}",
            arrived=repr(kind[:40]),
            todo="use the same software version on both sides",
        )
    fields.close()
    return mechanism
