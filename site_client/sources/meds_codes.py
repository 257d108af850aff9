"""What each distinct code of a MEDS data set stands for: computed once a code, never a row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from site_client.sources.code_map import CodeMap, is_standard_code
from site_client.sources.events import BIRTH, DEATH, SEX
from site_client.sources.meds_mapping import MedsMapping

_FACTS: Final = {"MEDS_BIRTH": BIRTH, "MEDS_DEATH": DEATH}
_SEXES: Final = {
    "GENDER//F": "female",
    "GENDER//FEMALE": "female",
    "GENDER//M": "male",
    "GENDER//MALE": "male",
}


@dataclass(frozen=True)
class MappedCode:
    """What a record with one site code becomes.

    Args:
        code: with its vocabulary.
        unit: taken from the site code; none: only the record's own.
        text: in place of the record's own; none: the record's own.
        is_timed: whether the record's time belongs to the event.
    """

    code: str
    unit: str | None = None
    text: str | None = None
    is_timed: bool = True


@dataclass(frozen=True)
class MedsCodes:
    """The declared rules of one data set; see `MedsMapping` for their order.

    Args:
        mapping: the declared mapping.
        declared: `code_map` and `code_maps`, merged.
        parents: `parent_codes` of metadata/codes.parquet.
    """

    mapping: MedsMapping
    declared: CodeMap
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _found: dict[str, tuple[MappedCode, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def mapped(self, site_code: str) -> tuple[MappedCode, ...]:
        """Return the events of a record with this code, none when the code is unmapped."""
        if site_code not in self._found:
            self._found[site_code] = self._mapped(site_code)
        return self._found[site_code]

    def _mapped(self, site_code: str) -> tuple[MappedCode, ...]:
        without_unit, unit = self._split(site_code)
        declared = self.declared.get(site_code) or self.declared.get(without_unit)
        if declared is not None:
            return tuple(MappedCode(target, unit=unit) for target in declared)
        if site_code in _FACTS:
            return (MappedCode(_FACTS[site_code]),)
        sex = self.mapping.sexes.get(site_code) or _SEXES.get(site_code.upper())
        if sex is not None:
            return (MappedCode(SEX, text=sex, is_timed=False),)
        wanted = self.mapping.map_to_parents
        parents = self.parents.get(site_code, ()) if wanted else ()
        chosen = tuple(
            dict.fromkeys(parent for parent in parents if parent.partition("/")[0] in wanted)
        )
        if chosen:
            return tuple(MappedCode(parent, unit=unit) for parent in chosen)
        standard = _standard_form(without_unit)
        return (MappedCode(standard, unit=unit),) if standard else ()

    def descendants(self, codes: frozenset[str]) -> dict[str, frozenset[str]]:
        """Return each code with what the site codes below it became; see `EventSource`."""
        children: dict[str, list[str]] = defaultdict(list)
        for site_code, parents in self.parents.items():
            for parent in parents:
                children[parent].append(site_code)
        return {code: self._below(code, children) for code in codes}

    def _below(self, code: str, children: Mapping[str, list[str]]) -> frozenset[str]:
        found = {code}
        open_codes, seen = [code], {code}
        while open_codes:
            for site_code in children.get(open_codes.pop(), ()):
                found |= {item.code for item in self.mapped(site_code)}
                # A parent may itself be a site code; circles among them end at `seen`.
                names = {site_code, _standard_form(site_code)} - seen - {""}
                seen |= names
                open_codes += names
        return frozenset(found)

    def _split(self, site_code: str) -> tuple[str, str | None]:
        for form in self.mapping.unit_in_code:
            found = re.fullmatch(_expression(form), site_code)
            if found is not None:
                unit = found["unit"].strip()
                vocabulary = form.partition("//")[0]
                is_known = bool(unit) and unit not in self.mapping.unit_missing
                return f"{vocabulary}//{found['code']}", unit if is_known else None
        return site_code, None


def parent_form(parent: str) -> str:
    """Return a parent code as the event table writes it, empty when it has no such form."""
    return _standard_form(parent)


def _standard_form(site_code: str) -> str:
    text = site_code.replace("//", "/", 1) if "//" in site_code else site_code
    return text if is_standard_code(text) else ""


def _expression(form: str) -> str:
    part = r"(?:(?!//).)"
    return (
        re.escape(form)
        .replace("<code>", f"(?P<code>{part}+)")
        .replace("<unit>", f"(?P<unit>{part}*)")
    )
