"""Check digits of LOINC and SNOMED CT codes: most slips of a key give a code that is none."""

from __future__ import annotations

from typing import Final

# Verhoeff 1969: multiplication in the dihedral group D5, and the position permutation.
_MULTIPLY: Final = tuple(
    tuple(
        (left + right) % 5
        if left < 5 and right < 5
        else (left + right - 5) % 5 + 5
        if left < 5
        else (left - 5 - right) % 5 + 5
        if right < 5
        else (left - right) % 5
        for right in range(10)
    )
    for left in range(10)
)
_PERMUTE: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def is_mistyped(code: str) -> bool:
    """Return whether a code `SYSTEM/code` carries a check digit and it is wrong.

    Codes of systems without check digits are never called mistyped.

    Source: LOINC Users' Guide, appendix "Calculating mod 10 check digits"; SNOMED CT Release File
    Specification, section "Check-digit".
    """
    system, _, local = code.partition("/")
    if system == "LOINC":
        number, _, digit = local.partition("-")
        is_formed = number.isascii() and number.isdigit() and digit.isascii() and digit.isdigit()
        return not (is_formed and len(number) <= 8 and len(digit) == 1) or not _is_mod_10(
            number + digit
        )
    if system == "SNOMED":
        is_formed = local.isascii() and local.isdigit() and 6 <= len(local) <= 18
        return not is_formed or not _is_verhoeff(local)
    return False


def _is_mod_10(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


def _is_verhoeff(digits: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(digits)):
        permuted = int(digit)
        for _ in range(place % 8):
            permuted = _PERMUTE[permuted]
        check = _MULTIPLY[check][permuted]
    return check == 0
