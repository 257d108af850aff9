"""From the unit a site recorded to the unit of the plan: one affine map per pair, or a reason.

Decided once per distinct unit and joined to the events in SQL; no value passes through here. The
plan writes UCUM; a site's spellings are read by `unit_spellings`, its units by `ucum`, and what an
amount weighs by `molar_masses`. What cannot be known is left out with a reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

from common.errors import DataSourceError, PlanError
from common.units.molar_masses import (
    ANALYTES,
    HEMOGLOBIN_A1C,
    HEMOGLOBIN_A1C_INTERCEPT,
    HEMOGLOBIN_A1C_SLOPE,
    Analyte,
)
from common.units.ucum import SUBSTANCE, NotUcumError, Powers, Unit, parse_unit
from common.units.unit_spellings import SPELLINGS, ucum_code

UNITS_PER_KATAL: Final = Fraction(60_000_000)


@dataclass(frozen=True)
class Conversion:
    """`value * factor + offset` is the value in the plan's unit; both rounded once from exact."""

    factor: float
    offset: float


class LeftOut(StrEnum):
    """Why values in a unit are not used."""

    MISSING = "no unit recorded, and the plan declares no unit_if_missing"
    UNKNOWN = "neither a UCUM unit of clinical use nor a known spelling of one"
    INCOMMENSURABLE = "another quantity than the plan's unit"
    ANALYTE = "needs the analyte's molar mass, valence or definition of its units"


@dataclass(frozen=True)
class UnitDecision:
    """What is done with one distinct unit.

    Args:
        unit: as recorded, spaces included; None where none was.
        conversion: None: values are left out.
        reason: None: values are converted.
    """

    unit: str | None
    conversion: Conversion | None
    reason: LeftOut | None


def conversion(from_unit: str, to_unit: str, *, analyte: str | None) -> Conversion:
    """Return the map from a recorded unit to the plan's.

    Args:
        from_unit: UCUM, or a spelling in `unit_spellings`.
        to_unit: UCUM.
        analyte: LOINC component, `numerator/denominator` for a ratio; None: no analyte is meant.

    Raises:
        PlanError: `to_unit` is not a UCUM unit of clinical use.
        DataSourceError: the units do not convert; the recorded unit is not repeated, for it is a
            cell of the site's table.
    """
    decided = _decide(from_unit, plan_unit(to_unit), analyte)
    if isinstance(decided, Conversion):
        return decided
    raise DataSourceError(
        "values in a recorded unit cannot be brought to the plan's unit",
        expected=f"a unit that converts to {to_unit}, analyte {analyte or 'not declared'}",
        arrived=str(decided),
        todo="correct the unit at the source, or ask the study to name unit and analyte",
    )


def unit_table(
    units_found: Iterable[str | None], to_unit: str, analyte: str | None, assume: str | None
) -> list[UnitDecision]:
    """Return one decision per distinct unit, in the order found.

    Args:
        units_found: as recorded; None and empty text are a missing unit.
        to_unit: the plan's unit, UCUM.
        analyte: LOINC component, see `conversion`.
        assume: the plan's `unit_if_missing`, UCUM.

    Raises:
        PlanError: `to_unit` is no unit, or `assume` does not convert to it.
    """
    to = plan_unit(to_unit)
    missing: Conversion | LeftOut = LeftOut.MISSING
    if assume is not None:
        plan_unit(assume)
        missing = _decide(assume, to, analyte)
        if isinstance(missing, LeftOut):
            raise PlanError(
                "unit_if_missing does not convert to the feature's unit",
                expected=f"a unit that converts to {to_unit}",
                arrived=f"{assume}: {missing}",
                todo="name a unit that converts, or leave unit_if_missing out",
            )
    decisions = []
    for unit in dict.fromkeys(units_found):
        recorded = unit is not None and unit.strip()
        decided = _decide(unit, to, analyte) if unit is not None and recorded else missing
        if isinstance(decided, Conversion):
            decisions.append(UnitDecision(unit, decided, None))
        else:
            decisions.append(UnitDecision(unit, None, decided))
    return decisions


@lru_cache(maxsize=256)
def plan_unit(code: str) -> Unit:
    """Return the meaning of a plan's unit, which must be UCUM and no laboratory's spelling.

    Raises:
        PlanError: it is not.
    """
    meant = SPELLINGS.get(code)
    try:
        unit = parse_unit(code)
        if meant is None or parse_unit(meant) == unit:
            return unit
        arrived = f"{code!r}, which laboratories write for {meant}"
    except NotUcumError as error:
        arrived = f"{code[:40]!r}: {error}"
    raise PlanError(
        "a feature's unit is not UCUM",
        expected="a UCUM code of clinical use, case-sensitive, such as umol/L or 10*9/L",
        arrived=arrived,
        todo=f"write {meant}" if meant else "write the unit in UCUM (https://ucum.org)",
    )


def _decide(recorded: str, to: Unit, analyte: str | None) -> Conversion | LeftOut:
    try:
        unit = parse_unit(ucum_code(recorded))
    except NotUcumError:
        return LeftOut.UNKNOWN
    exact = _exact(unit, to, analyte)
    if isinstance(exact, LeftOut):
        return exact
    return Conversion(float(exact[0]), float(exact[1]))


def _exact(unit: Unit, to: Unit, analyte: str | None) -> tuple[Fraction, Fraction] | LeftOut:
    """Return factor and offset, exact."""
    if analyte in HEMOGLOBIN_A1C and (scales := _between_a1c_scales(unit, to)) is not None:
        return scales
    if _without_substance(unit.powers) != _without_substance(to.powers):
        return LeftOut.INCOMMENSURABLE
    # {score} and % are both numbers to UCUM; a score is not a hundred times a percentage.
    if (unit.only_annotation or to.only_annotation) and unit.factor != to.factor:
        return LeftOut.INCOMMENSURABLE
    factor, offset = unit.factor / to.factor, (unit.offset - to.offset) / to.factor
    sides = ((unit.above, to.above), (unit.below, to.below))
    if unit.powers == to.powers and all(_but_mass(old) == _but_mass(new) for old, new in sides):
        return factor, offset
    numerator, _, denominator = (analyte or "").partition("/")
    ratios = [
        _between_kinds(old, new, ANALYTES.get(name))
        for (old, new), name in zip(sides, (numerator, denominator), strict=True)
    ]
    above, below = ratios
    if isinstance(above, LeftOut):
        return above
    return below if isinstance(below, LeftOut) else (factor * above / below, offset)


def _between_kinds(left: Powers, right: Powers, analyte: Analyte | None) -> Fraction | LeftOut:
    """Return how much of the right kind is one of the left, where one kind stands for another."""
    change = {
        kind: right.get(kind, 0) - left.get(kind, 0)
        for kind in SUBSTANCE
        if right.get(kind, 0) != left.get(kind, 0)
    }
    if not change:
        return Fraction(1)
    if sorted(change.values()) != [-1, 1]:
        return LeftOut.INCOMMENSURABLE
    old, new = sorted(change, key=lambda kind: change[kind])
    for family in (("g", "mol", "eq"), ("kat", "[iU]")):
        if old in family and new in family:
            quantities = _one_quantity(analyte or Analyte())
            known = old in quantities and new in quantities
            return quantities[new] / quantities[old] if known else LeftOut.ANALYTE
    return LeftOut.INCOMMENSURABLE


def _one_quantity(analyte: Analyte) -> dict[str, Fraction]:
    """Return one mole, in each kind of substance that the analyte declares; one katal likewise."""
    quantities = {"mol": Fraction(1), "kat": Fraction(1)}
    if analyte.molar_mass is not None:
        quantities["g"] = analyte.molar_mass
    if analyte.valence is not None:
        quantities["eq"] = Fraction(analyte.valence)
    if analyte.units_are_international:
        quantities["[iU]"] = UNITS_PER_KATAL
    return quantities


def _between_a1c_scales(unit: Unit, to: Unit) -> tuple[Fraction, Fraction] | None:
    """Return NGSP from IFCC or IFCC from NGSP; None: both are on one scale, or on neither."""
    if unit.powers or to.powers or unit.only_annotation or to.only_annotation:
        return None
    slope, intercept = HEMOGLOBIN_A1C_SLOPE, HEMOGLOBIN_A1C_INTERCEPT
    thousandth, hundredth = Fraction(1, 1000), Fraction(1, 100)
    if "mol" in unit.above and not to.above:
        to_percent, percent = hundredth / to.factor, unit.factor / thousandth
        return slope * percent * to_percent, intercept * to_percent
    if "mol" in to.above and not unit.above:
        to_permille, share = thousandth / to.factor, unit.factor / hundredth
        return share / slope * to_permille, -intercept / slope * to_permille
    return None


def _without_substance(powers: Powers) -> Powers:
    """Return the powers of what no analyte can turn into another."""
    return {base: power for base, power in powers.items() if base not in SUBSTANCE}


def _but_mass(side: Powers) -> Powers:
    # Mass over mass is a share like any other; an amount over an amount is not a share of mass.
    return {kind: power for kind, power in side.items() if kind != "g"}
