"""The value of an Observation or of one of its components."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from site_client.sources.fhir_elements import Element, child, text, words_of

_UCUM: Final = "http://unitsofmeasure.org"


class Value(NamedTuple):
    """What was observed.

    Args:
        number: finite.
        unit: UCUM's code where the source says so, else as recorded.
        words: an answer in words, or as a code with its vocabulary.
        is_present: a value of one of the forms that we read is there.
        is_unreadable: a number is there that is none or not finite.
    """

    number: float | None = None
    unit: str | None = None
    words: str | None = None
    is_present: bool = False
    is_unreadable: bool = False


NO_VALUE: Final = Value()


def value_of(element: Element, code_map: Mapping[str, str]) -> Value:
    """Return the value; an element with none, or of a form without a column, has `NO_VALUE`.

    A comparator is not read: a result below 5 stands as 5.

    Raises:
        NotFhir: an element has another shape than FHIR gives it.
    """
    if "valueQuantity" in element:
        quantity = child(element, "valueQuantity") or {}
        unit = text(quantity, "unit")
        if quantity.get("system") == _UCUM:
            unit = text(quantity, "code") or unit
        return _number(quantity.get("value"), unit)
    if "valueInteger" in element:
        return _number(element["valueInteger"], None)
    words: str | None = None
    if "valueCodeableConcept" in element:
        words = words_of(child(element, "valueCodeableConcept") or {}, code_map)
    elif "valueString" in element:
        words = text(element, "valueString")
    elif "valueBoolean" in element:
        truth = element["valueBoolean"]
        if type(truth) is not bool:
            return Value(is_present=True, is_unreadable=True)
        words = "true" if truth else "false"
    return NO_VALUE if words is None else Value(words=words, is_present=True)


def _number(value: object, unit: str | None) -> Value:
    # type(), not isinstance(): true and false are no numbers.
    if type(value) is float and math.isfinite(value):
        return Value(value, unit, None, True)
    if type(value) is int:
        try:
            return Value(float(value), unit, None, True)
        except OverflowError:
            pass
    return Value(None, unit, None, True, True)
