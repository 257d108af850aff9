"""The catalogue's entries as frozen models, read once from the shipped data files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from common.study.plan_types import Code, Finite, PlanPart, Text, WindowDays

ICD_10_EDITIONS: Final = ("ICD10", "ICD10CM", "ICD10GM")
"""Vocabularies in which an entry's ICD-10 prefixes are looked for."""

Kind = Literal["measurement", "condition", "drug", "age", "category"]
_EVENTS: Final = ("any", "count", "time_since")
AGGREGATES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "measurement": ("last", "first", "min", "max", "mean", "median", "slope", *_EVENTS),
    "condition": _EVENTS,
    "drug": _EVENTS,
    "age": (),
    "category": (),
}
"""How values may become one, by an entry's kind; without any, an entry is taken by its name."""

Names = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
Bounds = Annotated[tuple[Finite, Finite], Field(strict=False)]


class Entry(PlanPart):
    """One feature's definition.

    `codes` are each with the name that its vocabulary gives it, `icd10` and `icd9cm` prefixes.
    `verified` says where code and name were seen together, `ranges` where the plausible range is
    from; both are keys of the catalogue's sources.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,50}$")]
    group: Text
    says: Text
    kind: Kind
    codes: dict[Code, Text]
    icd10: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    icd9cm: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    unit: Text | None = None
    unit_if_missing: Text | None = None
    analyte: Text | None = None
    plausible_range: Bounds | None = None
    clip: Bounds | None = None
    levels: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    window_days: WindowDays = 365
    verified: Names
    ranges: Names

    def plan_codes(self) -> tuple[str, ...]:
        """Return the codes as a plan lists them, ICD prefixes in every edition."""
        ten = (f"{edition}/{code}*" for edition in ICD_10_EDITIONS for code in self.icd10)
        return (*self.codes, *ten, *(f"ICD9CM/{code}*" for code in self.icd9cm))

    def terms(self) -> tuple[str, ...]:
        """Return what a plan may write after `from_catalogue =`."""
        return tuple(f"{self.name}.{item}" for item in AGGREGATES[self.kind]) or (self.name,)


@dataclass(frozen=True)
class Catalogue:
    """All entries.

    Args:
        version: stands in the description of every feature that was taken from it.
        groups: key to title, in order.
        sources: key to citation.
        entries: by name, group after group.
    """

    version: str
    groups: Mapping[str, str]
    sources: Mapping[str, str]
    entries: Mapping[str, Entry]


@lru_cache(maxsize=1)
def read_catalogue() -> Catalogue:
    """Return the catalogue that this installation ships."""
    head = _table("catalogue")
    entries: dict[str, Entry] = {}
    for group in head["groups"]:
        for name, fields in _table(group).items():
            entries[name] = Entry(name=name, group=group, **fields)
    return Catalogue(head["version"], head["groups"], head["sources"], entries)


def _table(name: str) -> dict[str, Any]:
    file = files("common.study.catalogue") / "data" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
