"""Elements of a FHIR resource by name and shape: objects, lists, codes, references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from site_client.sources.vocabularies import SYSTEM_URIS, code_of

Element: TypeAlias = dict[str, Any]
References: TypeAlias = Mapping[str, tuple[str, str]]
"""A bundle's `fullUrl`s of the form `urn:`, each to its resource's type and id."""

_PREFERRED: Final = ("SNOMED", "LOINC", "RxNorm", "CVX", "ICD10CM", "ICD10", "ATC")
_RANKED: Final = {
    uri: (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)
    for uri, name in SYSTEM_URIS.items()
}
_LITERAL: Final = re.compile(
    r"(?:.*/)?(Patient|Medication)/([^/?#|\s]+)(?:/_history/[^/?#\s]+)?", re.ASCII
)
_KEY_LENGTH_MAX: Final = 120
_REFERENCE_LENGTH_MAX: Final = 2048


class NotFhir(Exception):
    """An element has another shape than FHIR gives it; carries no text."""


def child(element: Element, name: str) -> Element | None:
    """Return an element that is an object, None where absent; raises `NotFhir`."""
    found = element.get(name)
    if found is None or type(found) is dict:
        return found
    raise NotFhir


def children(element: Element, name: str) -> list[Element]:
    """Return an element that is a list of objects, empty where absent; raises `NotFhir`."""
    found = element.get(name)
    if found is None:
        return []
    if type(found) is not list:
        raise NotFhir
    for item in found:
        if type(item) is not dict:
            raise NotFhir
    return found


def text(element: Element, name: str) -> str | None:
    """Return an element that is a string, None where absent or empty; raises `NotFhir`."""
    found = element.get(name)
    if found is None or type(found) is str:
        return found or None
    raise NotFhir


def standard_code(concept: Element, code_map: Mapping[str, str]) -> str | None:
    """Return a CodeableConcept's code: what the site maps it to, else the preferred known one.

    The preference among known vocabularies is SNOMED, LOINC, RxNorm, CVX, ICD10CM, ICD10, ATC, then
    the others of `SYSTEM_URIS`; among equals the first coding.
    """
    if code_map:
        for coding in children(concept, "coding"):
            own = f"{text(coding, 'system') or ''}|{text(coding, 'code') or ''}"
            if own in code_map:
                return code_map[own]
    best: tuple[int, str] | None = None
    code = ""
    for coding in children(concept, "coding"):
        ranked = _RANKED.get(text(coding, "system") or "")
        if ranked is not None and (best is None or ranked[0] < best[0]):
            found = text(coding, "code")
            if found is not None:
                best, code = ranked, found
    return None if best is None else code_of(best[1], code)


def unmapped_key(concept: Element, resource_type: str) -> str:
    """Return what a concept without a known coding is counted under."""
    for coding in children(concept, "coding"):
        system, code = text(coding, "system"), text(coding, "code")
        if system is not None or code is not None:
            return f"{system or ''}|{code or ''}"[:_KEY_LENGTH_MAX]
    return f"{resource_type} without a coding"


def words_of(concept: Element, code_map: Mapping[str, str]) -> str | None:
    """Return a CodeableConcept as an answer: its known code, else its text, else its display."""
    known = standard_code(concept, code_map) or text(concept, "text")
    if known is not None:
        return known
    for coding in children(concept, "coding"):
        if display := text(coding, "display"):
            return display
    return None


def referred(element: Element, name: str, kind: str, references: References) -> str | None:
    """Return the id of the resource of one kind that a Reference names, None where it does not.

    Args:
        element: holds the Reference.
        name: of the Reference.
        kind: "Patient" or "Medication".
        references: of the bundle.
    """
    reference = child(element, name)
    literal = None if reference is None else text(reference, "reference")
    if literal is None or len(literal) > _REFERENCE_LENGTH_MAX:
        return None
    found = references.get(literal) or _literal(literal)
    return found[1] if found is not None and found[0] == kind else None


@lru_cache(maxsize=1 << 14)
def _literal(reference: str) -> tuple[str, str] | None:
    match = _LITERAL.fullmatch(reference)
    return None if match is None else (match[1], match[2])
