"""In which unit a hospital records a measurement at a time, and what its records say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulations.populations.codes import PLACES
from simulations.populations.drift import seconds
from simulations.populations.hospital import Hospital
from simulations.populations.people import Floats, Whole
from simulations.populations.variables import MEASUREMENTS, Measurement

UNITS: Final = tuple(dict.fromkeys(unit for item in MEASUREMENTS for unit in item.units))
"""UCUM codes; a recorded event has a place in it."""
UNIT_PLACES: Final = {unit: place for place, unit in enumerate(UNITS)}


@dataclass(frozen=True)
class UsedUnits:
    """Of each row.

    Args:
        factor, offset: float64 [rows], from the plan's unit to the one in use.
        decimals: int64 [rows].
        said: int64 [rows], place in `UNITS` of what the record says.
        said_factor, said_offset: float64 [rows], of what the record says.
        usual: int64 [rows], place in `CODES` of the unit's usual code.
    """

    factor: Floats
    offset: Floats
    decimals: Whole
    said: Whole
    said_factor: Floats
    said_offset: Floats
    usual: Whole

    def read_back(self, recorded: Floats) -> Floats:
        """Return recorded values in the plan's unit, by the unit that the record says."""
        return (recorded - self.said_offset) / self.said_factor


def recorded_units(hospital: Hospital, item: Measurement, begun_s: Whole) -> UsedUnits:
    """Return the units of stays or visits that begin at these times."""
    names = list(item.units)
    used = np.full(len(begun_s), names.index(hospital.units.get(item.name, item.unit)))
    said = used.copy()
    for drift in sorted(hospital.drift, key=lambda drift: drift.begins):
        if item.name in drift.units:
            changed = begun_s >= seconds(drift.begins)
            used[changed] = names.index(drift.units[item.name])
            if drift.units_labelled:
                said[changed] = used[changed]
    of_unit = [item.units[name] for name in names]
    factor = np.array([unit.factor for unit in of_unit], dtype=np.float64)
    offset = np.array([unit.offset for unit in of_unit], dtype=np.float64)
    decimals = np.array([unit.decimals for unit in of_unit])
    usual = np.array([PLACES[item.name, "LOINC", unit.loinc[0]] for unit in of_unit])
    place = np.array([UNIT_PLACES[name] for name in names])
    return UsedUnits(
        factor=factor[used],
        offset=offset[used],
        decimals=decimals[used],
        said=place[said],
        said_factor=factor[said],
        said_offset=offset[said],
        usual=usual[said],
    )
