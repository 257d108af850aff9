"""Records of noisy steps: immutable data whose docstrings state the mathematics.

Accounting reads the record and refuses one it does not know. The meaning of an existing record is
never changed: a new meaning is a new record with a new `kind`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

PATIENT_HASH_PARTS = 1_000_000
"""The site's salted hash sends each patient to one of this many parts, the same in every study."""


@dataclass(frozen=True)
class PatientPart:
    """The patients whose salted hash lies in [first, stop) of `PATIENT_HASH_PARTS`.

    Two releases that touch disjoint parts compose in parallel (each patient is in one of them);
    releases over overlapping parts compose sequentially for the patients in both.
    """

    first: int = 0
    stop: int = PATIENT_HASH_PARTS

    @property
    def share(self) -> float:
        """Share of all patients, in expectation over the salt."""
        return (self.stop - self.first) / PATIENT_HASH_PARTS


@dataclass(frozen=True)
class DpSgdSteps:
    """`steps` of DP-SGD on the Poisson-sampled sum of clipped patient gradients.

    Each step includes every patient independently with probability `sampling_probability`, clips
    each patient's gradient to L2 norm C, sums, and adds N(0, (noise_multiplier * C)^2 I).
    Unit: patient. Neighbouring relation: add or remove one patient. (Abadi et al. 2016, Alg. 1;
    accounted as `steps` Poisson-subsampled Gaussian mechanisms.)
    """

    kind: ClassVar[str] = "dp-sgd-steps"
    noise_multiplier: float
    sampling_probability: float
    steps: int
    part: PatientPart = PatientPart()


@dataclass(frozen=True)
class GaussianVector:
    """One vector of L2 sensitivity S released with N(0, (noise_multiplier * S)^2) per coordinate.

    Unit: patient. Neighbouring relation: add or remove one patient. A histogram in which each
    patient is in at most one cell has S = 1. Rounding the noisy vector is post-processing.
    (Dwork and Roth 2014, A.1; accounted as one Gaussian mechanism.)
    """

    kind: ClassVar[str] = "gaussian-vector"
    noise_multiplier: float
    part: PatientPart = PatientPart()


@dataclass(frozen=True)
class DiscreteGaussianCounts:
    """Whole counts, each released with exact discrete Gaussian noise N_Z(0, noise_multiplier^2).

    Each patient adds 1 to at most `cells_per_patient_max` cells and nothing to any other; the noise
    of each cell is independent, P(x) proportional to exp(-x^2 / (2 noise_multiplier^2)) over the
    integers. Unit: patient. Neighbouring relation: add or remove one patient. (Canonne, Kamath and
    Steinke 2020, definition 1; accounted as `cells_per_patient_max` one-dimensional discrete
    Gaussian mechanisms of sensitivity 1.)
    """

    kind: ClassVar[str] = "discrete-gaussian-counts"
    noise_multiplier: float
    cells_per_patient_max: int
    part: PatientPart = PatientPart()


MechanismRecord: TypeAlias = DpSgdSteps | GaussianVector | DiscreteGaussianCounts
