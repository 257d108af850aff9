"""UCUM units of clinical use, as exact fractions of base units.

Source: The Unified Code for Units of Measure, version 2.2 (grammar of section 2, values of its
tables). ucumvert and pint read the same codes; they are the oracle of the tests and not used here,
because they make every arbitrary unit the number one ([iU]/L = [arb'U]/L = /L), the arcminute a
minute of time, and drop what distinguishes ng{FEU}/mL from ng/mL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

LENGTH_MAX: Final = 80
MAGNITUDE_MAX: Final = 10**60

SUBSTANCE: Final = ("g", "mol", "eq", "[iU]", "kat")
"""Ways to say how much of an analyte there is; which of them agree, only the analyte says."""

Powers = dict[str, int]


@dataclass(frozen=True)
class Unit:
    """A unit as `factor` times base units, plus `offset` kelvin.

    Args:
        factor: exact.
        offset: exact; other than 0 only for temperatures.
        powers: of each base unit, none of them 0.
        above: powers of `SUBSTANCE` written in the numerator, before anything cancels.
        below: the same of the denominator: mg/g and 1 have the same `powers`, not the same `below`.
        only_annotation: nothing but curly braces, such as {score}.
    """

    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    powers: Powers = field(default_factory=dict)
    above: Powers = field(default_factory=dict)
    below: Powers = field(default_factory=dict)
    only_annotation: bool = False


def _base(factor: str, **powers: int) -> Unit:
    return Unit(Fraction(factor), powers=dict(powers))


def _amount(factor: str, kind: str) -> Unit:
    return Unit(Fraction(factor), powers={kind: 1}, above={kind: 1})


_METRIC: Final[dict[str, Unit]] = {
    "m": _base("1", m=1),
    "s": _base("1", s=1),
    "g": _amount("1", "g"),
    "mol": _amount("1", "mol"),
    "eq": _amount("1", "eq"),
    "osm": _base("1", osm=1),
    "kat": _amount("1", "kat"),
    "U": _amount("1/60000000", "kat"),
    # Not UCUM: OHDSI's standard concepts for an enzyme's unit carry it (8645 is [U]/L).
    "[U]": _amount("1/60000000", "kat"),
    "[iU]": _amount("1", "[iU]"),
    "[IU]": _amount("1", "[iU]"),
    "K": _base("1", K=1),
    "l": _base("1/1000", m=3),
    "L": _base("1/1000", m=3),
    "Pa": _base("1000", g=1, m=-1, s=-2),
    "bar": _base("100000000", g=1, m=-1, s=-2),
    "m[Hg]": _base("133322000", g=1, m=-1, s=-2),
    "m[H2O]": _base("9806650", g=1, m=-1, s=-2),
    "N": _base("1000", g=1, m=1, s=-2),
    "dyn": _base("1/100", g=1, m=1, s=-2),
    "J": _base("1000", g=1, m=2, s=-2),
    "cal": _base("4184", g=1, m=2, s=-2),
    "W": _base("1000", g=1, m=2, s=-3),
    "Hz": _base("1", s=-1),
    "V": _base("1000", g=1, m=2, s=-2, C=-1),
    "g%": Unit(Fraction(10000), powers={"g": 1, "m": -3}, above={"g": 1}),
}
_PLAIN: Final[dict[str, Unit]] = {
    "10*": _base("10"),
    "10^": _base("10"),
    "%": _base("1/100"),
    "[ppth]": _base("1/1000"),
    "[ppm]": _base("1/1000000"),
    "[ppb]": _base("1/1000000000"),
    "min": _base("60", s=1),
    "h": _base("3600", s=1),
    "d": _base("86400", s=1),
    "wk": _base("604800", s=1),
    "mo": _base("2629800", s=1),
    "a": _base("31557600", s=1),
    "deg": _base("1", deg=1),
    "[in_i]": _base("254/10000", m=1),
    "[ft_i]": _base("3048/10000", m=1),
    "[lb_av]": _amount("45359237/100000", "g"),
    "[oz_av]": _amount("45359237/1600000", "g"),
    "[in_i'H2O]": _base("24908891/100", g=1, m=-1, s=-2),
    "[in_i'Hg]": _base("33863788/10", g=1, m=-1, s=-2),
    "[psi]": _base("8896443230521/1290320", g=1, m=-1, s=-2),
    "[drp]": _base("1/20000000", m=3),
    "[PRU]": _base("133322000000", g=1, m=-4, s=-1),
    "[wood'U]": _base("7999320000", g=1, m=-4, s=-1),
}
# Defined by a procedure and nothing else: each is commensurable with itself alone.
# fmt: off
_ARBITRARY: Final = frozenset({
    "[arb'U]", "[USP'U]", "[GPL'U]", "[MPL'U]", "[APL'U]", "[beth'U]", "[anti'Xa'U]",
    "[todd'U]", "[CFU]", "[PFU]", "[FFU]", "[EU]", "[ELU]", "[FEU]", "[BAU]", "[AU]", "[PNU]",
    "[HPF]", "[LPF]", "[pH]", "[S]", "[NTU]", "[FNU]", "[Ch]", "[hnsf'U]", "[MET]", "[diop]",
    "[TCID_50]", "[CCID_50]", "[EID_50]", "[Lf]", "[IR]", "[tb'U]", "[dye'U]", "[ka'U]",
    "[knk'U]", "[bdsk'U]", "[smgy'U]",
})
# fmt: on
_TEMPERATURES: Final = {
    "Cel": Unit(Fraction(1), Fraction(27315, 100), {"K": 1}),
    "[degF]": Unit(Fraction(5, 9), Fraction(45967, 180), {"K": 1}),
}
_PREFIXES: Final = {
    **{"da": 1, "h": 2, "k": 3, "M": 6, "G": 9, "T": 12, "d": -1, "c": -2, "m": -3, "u": -6},
    **{"n": -9, "p": -12, "f": -15, "a": -18, "z": -21},
}
# One plasma sample has about half as many D-dimer units as fibrinogen equivalents.
_TELLING_ANNOTATIONS: Final = {"{FEU}": "{FEU}", "{DDU}": "{DDU}", "{D-DU}": "{DDU}"}
# The usual way to write "per standard body surface"; without it, clearance would lose its area.
_BODY_SURFACE: Final = re.compile(r"\{1\.73[ _.]?(m2|m\^2|sqm|sq\.?m)\}", re.IGNORECASE)

_TOKEN: Final = re.compile(r"\{[!-z|~]*\}|[./()]|(?:\[[!-Z^-z|~]+\]|[!-'*+\-0-9:-Z^-z|~])+")
_SIMPLE: Final = re.compile(r"(.+?)([+-]?[1-9][0-9]{0,2})?", re.DOTALL)


class NotUcumError(ValueError):
    """The text is not a UCUM unit of `parse_unit`'s tables; its message never quotes the text."""


def parse_unit(text: str) -> Unit:
    """Return the meaning of a UCUM code, case-sensitive.

    Raises:
        NotUcumError: not UCUM, a unit of no clinical use, or longer than `LENGTH_MAX` characters.
    """
    if not 0 < len(text) <= LENGTH_MAX:
        raise NotUcumError("empty or too long")
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise NotUcumError("a character that no unit has")
    special = _TEMPERATURES.get(text)
    if special is not None:
        return special
    unit = _term(tokens)
    if tokens:
        raise NotUcumError("something follows the unit")
    if not Fraction(1, MAGNITUDE_MAX) < unit.factor < MAGNITUDE_MAX:
        raise NotUcumError("of a magnitude that is no measurement's")
    return unit


def _term(tokens: list[str]) -> Unit:
    """Consume a term: components from left to right, as UCUM divides."""
    per = tokens and tokens[0] == "/"
    unit = Unit(only_annotation=True) if per else _component(tokens)
    while tokens and tokens[0] in "./":
        sign = 1 if tokens.pop(0) == "." else -1
        unit = _times(unit, _component(tokens), sign)
    return unit


def _component(tokens: list[str]) -> Unit:
    if not tokens or tokens[0] in "./)":
        raise NotUcumError("an operator without a unit")
    first = tokens.pop(0)
    if first.startswith("("):
        unit = _term(tokens)
        if not tokens or tokens.pop(0) != ")":
            raise NotUcumError("a parenthesis that does not close")
    elif first.startswith("{"):
        return _annotation(first)
    else:
        unit = _simple(first)
    if tokens and tokens[0].startswith("{"):
        annotation = tokens.pop(0)
        if annotation in _TELLING_ANNOTATIONS:
            unit = _times(unit, _annotation(annotation), 1)
        elif _BODY_SURFACE.fullmatch(annotation):
            raise NotUcumError("a body surface that is not divided by")
    return unit


def _annotation(text: str) -> Unit:
    if _BODY_SURFACE.fullmatch(text):
        return Unit(Fraction(173, 100), powers={"m": 2})
    if text in _TELLING_ANNOTATIONS:
        return Unit(powers={_TELLING_ANNOTATIONS[text]: 1})
    return Unit(only_annotation=True)


def _simple(token: str) -> Unit:
    if token.isdecimal():
        if token.startswith("0"):
            raise NotUcumError("a number that begins with 0")
        return Unit(Fraction(int(token)))
    match = _SIMPLE.fullmatch(token)
    if match is None:
        raise NotUcumError("no unit of clinical use")
    symbol, exponent = match[1], int(match[2] or 1)
    return _to_the(_symbol(symbol), exponent)


def _symbol(symbol: str) -> Unit:
    unit = _METRIC.get(symbol) or _PLAIN.get(symbol)
    if unit is not None:
        return unit
    if symbol in _ARBITRARY:
        return Unit(powers={symbol: 1})
    for prefix, power in _PREFIXES.items():
        metric = _METRIC.get(symbol.removeprefix(prefix)) if symbol.startswith(prefix) else None
        if metric is not None:
            return _times(Unit(Fraction(10) ** power), metric, 1)
    raise NotUcumError("no unit of clinical use")


def _to_the(unit: Unit, exponent: int) -> Unit:
    scaled = [
        {base: power * abs(exponent) for base, power in side.items()}
        for side in (unit.above, unit.below)
    ]
    above, below = scaled if exponent > 0 else reversed(scaled)
    powers = {base: power * exponent for base, power in unit.powers.items()}
    return Unit(unit.factor**exponent, powers=powers, above=above, below=below)


def _times(left: Unit, right: Unit, sign: int) -> Unit:
    above, below = (right.above, right.below) if sign > 0 else (right.below, right.above)
    return Unit(
        left.factor * right.factor**sign,
        powers=_added(left.powers, right.powers, sign),
        above=_added(left.above, above, 1),
        below=_added(left.below, below, 1),
        only_annotation=left.only_annotation and right.only_annotation,
    )


def _added(left: Powers, right: Powers, sign: int) -> Powers:
    total = dict(left)
    for base, power in right.items():
        total[base] = total.get(base, 0) + sign * power
    return {base: power for base, power in total.items() if power}
