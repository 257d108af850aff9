"""Codes that end in a star: everything below one place of a classification, by its first letters.

Allowed only where a code's beginning is its place: ICD-9-CM, ICD-10 with its national forms, ATC.
Dots are left out on both sides, for one site writes I50.9 and another I509.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from typing import Final

STAR: Final = "*"

_ICD_10: Final = r"[A-Z][0-9][0-9A-Z.]*"
_FORMS: Final = {
    "ATC": r"[A-Z][0-9]{2}[0-9A-Z]*",
    "ICD10": _ICD_10,
    "ICD10CM": _ICD_10,
    "ICD10GM": _ICD_10,
    "ICD9CM": r"([0-9]{2}|[VE][0-9])[0-9.]*",
}
PREFIX_SYSTEMS: Final = tuple(_FORMS)
"""Vocabularies in which a code may end in a star."""


def is_prefix(code: str) -> bool:
    """Return whether a code `SYSTEM/code` stands for all codes that begin so."""
    system, _, local = code.partition("/")
    form = _FORMS.get(system)
    return form is not None and re.fullmatch(form + r"\*", local) is not None


def is_misused_star(code: str) -> bool:
    """Return whether a star stands where it has no meaning."""
    if code.partition("/")[0] in _FORMS:
        return STAR in code and not is_prefix(code)
    return code.endswith(STAR)


def without_dots(code: str) -> str:
    """Return a code as codes of `PREFIX_SYSTEMS` are compared: without dots, without its star."""
    return code.removesuffix(STAR).replace(".", "")


class CodeSet:
    """Codes of which is asked whether an event could have one of them and another code as well.

    Decided by what is written alone: the same code, with or without dots where those do not count,
    or one below the other.

    Args:
        codes: exact ones and prefixes.
    """

    def __init__(self, codes: Iterable[str]) -> None:
        self._exact = frozenset(codes)
        below = {code for code in self._exact if code.partition("/")[0] in _FORMS}
        self._plain = sorted({without_dots(code) for code in below})
        self._prefixes = {without_dots(code) for code in below if is_prefix(code)}

    def meets(self, code: str) -> bool:
        """Return whether an event could have this code, or one below it, and one of these."""
        if code in self._exact:
            return True
        if code.partition("/")[0] not in _FORMS:
            return False
        plain = without_dots(code)
        place = bisect.bisect_left(self._plain, plain)
        if place < len(self._plain):
            found = self._plain[place]
            if found == plain or (is_prefix(code) and found.startswith(plain)):
                return True
        return any(plain[:length] in self._prefixes for length in range(1, len(plain)))
