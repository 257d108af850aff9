"""Generated patients with a known risk model, in hospitals whose differences can be dialled.

`generate` gives the sites of a simulation, and writes them as OMOP, FHIR, MEDS or CSV.
"""

from simulations.populations.generate import (
    Form,
    GeneratedPatients,
    Population,
    Written,
    generate,
)
from simulations.populations.hospital import (
    CaseMix,
    Coding,
    Disparity,
    Drift,
    Hospital,
    Missing,
)
from simulations.populations.hospitals import differing_hospitals, read_hospitals

__all__ = [
    "CaseMix",
    "Coding",
    "Disparity",
    "Drift",
    "Form",
    "GeneratedPatients",
    "Hospital",
    "Missing",
    "Population",
    "Written",
    "differing_hospitals",
    "generate",
    "read_hospitals",
]
