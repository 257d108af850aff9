"""Read the fields of a record from the other side one by one, each with its type and bounds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from common.canonical import Canonical, canonical_float
from common.errors import ProtocolError


class Fields:
    """A record being read; `close` refuses whatever was not asked for.

    Args:
        record: parsed canonical JSON.
        what: the record's name in messages.
    """

    def __init__(self, record: Canonical, what: str) -> None:
        if not isinstance(record, Mapping):
            raise ProtocolError(
                f"a {what} is refused",
                expected="an object",
                arrived=type(record).__name__,
                todo="use the same software version on both sides",
            )
        self._left = dict(record)
        self._what = what

    def refuse(self, name: str, expected: str) -> ProtocolError:
        """Return the error that says a field is not what was expected."""
        return ProtocolError(
            f"field {name} of a {self._what} is refused",
            expected=expected,
            arrived="something else",
            todo="use the same software version on both sides",
        )

    def value(self, name: str) -> Canonical:
        """Return and consume a field of any type; raises `ProtocolError` when it is missing."""
        if name not in self._left:
            raise self.refuse(name, "a value")
        return self._left.pop(name)

    def consume_null(self, name: str) -> bool:
        """Return whether a field is null, consuming it only then."""
        is_null = name in self._left and self._left[name] is None
        if is_null:
            del self._left[name]
        return is_null

    def text(self, name: str, *, length_max: int = 4096) -> str:
        """Return and consume a text field."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > length_max:
            raise self.refuse(name, f"text of at most {length_max} characters")
        return value

    def integer(self, name: str, *, minimum: int, maximum: int) -> int:
        """Return and consume an integer field within bounds."""
        return self._bounded(name, self.value(name), minimum, maximum)

    def integers(self, name: str, *, count: int, minimum: int, maximum: int) -> tuple[int, ...]:
        """Return and consume a list of `count` integers within bounds."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) != count:
            raise self.refuse(name, f"a list of {count} integers")
        return tuple(self._bounded(name, item, minimum, maximum) for item in value)

    def real(self, name: str, *, minimum: float, maximum: float) -> float:
        """Return and consume a real number in its canonical decimal form, within bounds."""
        text = self.text(name, length_max=40)
        try:
            value = float(text)
        except ValueError:
            raise self.refuse(name, "a decimal number") from None
        if not math.isfinite(value) or not minimum <= value <= maximum:
            raise self.refuse(name, f"a number from {minimum} to {maximum}")
        if canonical_float(value) != text:
            raise self.refuse(name, "the shortest decimal form of the number")
        return value

    def boolean(self, name: str) -> bool:
        """Return and consume a boolean field."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def one_of(self, name: str, allowed: Collection[str]) -> str:
        """Return and consume a text field that is one of a few words."""
        text = self.text(name, length_max=64)
        if text not in allowed:
            raise self.refuse(name, ", ".join(allowed))
        return text

    def items(self, name: str, *, count_max: int) -> list[Canonical]:
        """Return and consume a list of at most `count_max` values of any type."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > count_max:
            raise self.refuse(name, f"a list of at most {count_max}")
        return value

    def close(self) -> None:
        """Refuse fields that nobody asked for."""
        if self._left:
            raise ProtocolError(
                f"a {self._what} is refused",
                expected="no further field",
                arrived=f"{len(self._left)} unknown field(s)",
                todo="use the same software version on both sides",
            )

    def _bounded(self, name: str, value: Canonical, minimum: int, maximum: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(name, "an integer")
        if not minimum <= value <= maximum:
            raise self.refuse(name, f"an integer from {minimum} to {maximum}")
        return value
