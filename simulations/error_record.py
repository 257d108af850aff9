"""Errors of our tree as flat text records, to be raised again in another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.errors import CohortiumError, InternalError

_PARTS = ("refused", "expected", "arrived", "todo", "number")


def record_of(error: CohortiumError) -> dict[str, str]:
    """Return an error as names and texts."""
    return {"error": type(error).__name__} | {part: str(getattr(error, part)) for part in _PARTS}


def error_of(record: Mapping[str, object]) -> CohortiumError:
    """Return the error that a record was made of; an unknown kind is an `InternalError`."""
    kinds = {kind.__name__: kind for kind in _kinds(CohortiumError)}
    kind = kinds.get(str(record.get("error")), InternalError)
    refused, expected, arrived, todo, number = (str(record.get(part, "")) for part in _PARTS)
    return kind(refused, expected=expected, arrived=arrived, todo=todo, number=number)


def _kinds(base: type[CohortiumError]) -> Iterator[type[CohortiumError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)
