"""Which patients train, tune and are held out: three disjoint shares of the salted hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.privacy.mechanism import PATIENT_HASH_PARTS, PatientPart


class Shares(Protocol):
    """What a plan's evaluation part says of them."""

    @property
    def held_out_fraction(self) -> float:
        """Share of patients who only score the final model."""

    @property
    def tuning_fraction(self) -> float | None:
        """Share of patients who score the models before it, if they are others."""


@dataclass(frozen=True)
class PatientParts:
    """The parts of a study's patients.

    Args:
        training: learnt from.
        tuning: score models in between; None: the held-out patients do.
        held_out: score the final model.
    """

    training: PatientPart
    tuning: PatientPart | None
    held_out: PatientPart


def patient_parts(shares: Shares) -> PatientParts:
    """Return the parts: held out the lowest share of the hash, then tuning, then training."""
    held_out = PatientPart(0, round(shares.held_out_fraction * PATIENT_HASH_PARTS))
    tuning: PatientPart | None = None
    stop = held_out.stop
    if shares.tuning_fraction is not None:
        stop += round(shares.tuning_fraction * PATIENT_HASH_PARTS)
        tuning = PatientPart(held_out.stop, stop)
    return PatientParts(PatientPart(stop, PATIENT_HASH_PARTS), tuning, held_out)


def share_of(part: PatientPart) -> float:
    """Return the public share of patients in a part, 0 to 1."""
    return (part.stop - part.first) / PATIENT_HASH_PARTS
