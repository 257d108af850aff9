"""What is true of a block of generated patients: who they are, their stays, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simulations.populations.hospital import Disparity, Hospital
from simulations.populations.streams import stream

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def _not_yet() -> Whole:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Patients:
    """A block of patients as they are.

    Args:
        first: number of the first in the hospital, from 1.
        born_day: int64 [patients], days since 1970.
        is_male: bool [patients].
        smoking: int64 [patients], index in `SMOKING`.
        conditions: bool [patients, conditions].
        drugs: bool [patients, drugs].
        age_years: float64 [patients], at the first stay.
        first_s: int64 [patients], the first admission, seconds since 1970.
        severity: float64 [patients], what is the same in all their stays.
    """

    first: int
    born_day: Whole
    is_male: Flags
    smoking: Whole
    conditions: Flags
    drugs: Flags
    age_years: Floats
    first_s: Whole
    severity: Floats

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.born_day)

    def among(self, disparity: Disparity) -> Flags:
        """Return who is in a disparity's group."""
        if disparity.group == "aged_75_or_more":
            return self.age_years >= 75
        return np.asarray(self.is_male == (disparity.group == "male"))


@dataclass(frozen=True)
class Stays:
    """Stays in hospital, in order of patient and time.

    Args:
        patient: int64 [stays], place in the block's patients.
        ordinal: int64 [stays], 1 for the first.
        admitted_s, index_s, left_s: int64 [stays], seconds since 1970.
        emergency_s: int64 [stays], when the patient came to the emergency department; -1: did not.
        severity: float64 [stays], standard deviations.
        values: float64 [stays, measurements], the last before the index date, in the plan's units.
        age_years: int64 [stays], completed at the index date.
        log_odds, risk: float64 [stays], of death within 30 days of the index date.
        died_s: int64 [stays], -1 where the patient lives for 30 days.
    """

    patient: Whole
    ordinal: Whole
    admitted_s: Whole
    index_s: Whole
    left_s: Whole
    emergency_s: Whole
    severity: Floats
    values: Floats
    age_years: Whole = field(default_factory=_not_yet)
    log_odds: Floats = field(default_factory=lambda: np.empty(0))
    risk: Floats = field(default_factory=lambda: np.empty(0))
    died_s: Whole = field(default_factory=_not_yet)

    def __len__(self) -> int:
        """Number of stays."""
        return len(self.patient)

    def chosen(self, keep: Flags) -> Stays:
        """Return some of the stays."""
        return Stays(**{name: column[keep] for name, column in vars(self).items()})


@dataclass(frozen=True)
class History:
    """A block of patients with their stays, and what is true of each stay.

    Args:
        hospital: whose.
        seed: of the population.
        block: number.
        patients: of the block.
        stays: in order of patient and time.
    """

    hospital: Hospital
    seed: int
    block: int
    patients: Patients
    stays: Stays

    def stream(self, purpose: str) -> np.random.Generator:
        """Return the block's random numbers of one purpose."""
        return stream(self.seed, self.hospital.site_id, self.block, purpose)
