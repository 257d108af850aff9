"""What a plan file takes from the catalogue, written out before anything is checked.

A plan holds full definitions, so that the approved digest covers them and a later catalogue changes
nothing. `from_catalogue = "creatinine.last"` in a feature takes one, with changes beside it; the
list `from_catalogue` at the top takes several as they are, after the written features.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.study.catalogue.entries import Entry, read_catalogue
from common.study.problems import Problem, shorten

KEY: Final = "from_catalogue"
CHANGES: Final = (
    *("name", "description", "window_days", "plausible_range", "clip"),
    *("unit_if_missing", "missing", "time_bins"),
)
"""What a plan may change of an entry; for anything else the feature is written out."""

_WORDS: Final = {
    "last": "last value",
    "first": "first value",
    "min": "lowest value",
    "max": "highest value",
    "mean": "mean",
    "median": "median",
    "slope": "change a day",
    "count": "number of records",
    "any": "whether recorded",
    "time_since": "days since the last record",
}
_COUNT_MAX: Final = {"measurement": 50.0, "condition": 20.0, "drug": 20.0}
_NEAR_MAX: Final = 20  # looking for near names takes milliseconds each, and a file has thousands
_TERM_LENGTH_MAX: Final = 80
_SHAPE_RULES: Final = ("P2", "P3", "P4")


@dataclass(frozen=True)
class Expansion:
    """A plan's document with the catalogue's definitions in it.

    Args:
        document: as the plan's models read it, but for the features that could not be taken.
        problems: of what was to be taken.
        written: how many features the file writes under `[[features]]`.
        failed: places of the features that could not be taken.
    """

    document: Mapping[str, object]
    problems: tuple[Problem, ...] = ()
    written: int | None = None
    failed: frozenset[int] = frozenset()

    def in_file(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems of the document as those of the file, its own included."""
        kept = []
        for problem in problems:
            place = re.match(r"features\[(\d+)\]", problem.path)
            if (
                place is not None
                and int(place[1]) in self.failed
                and problem.number in _SHAPE_RULES
            ):
                continue  # said once, by its own problem
            kept.append(self._placed(problem))
        return [*(self._placed(problem) for problem in self.problems), *kept]

    def _placed(self, problem: Problem) -> Problem:
        written = self.written
        if written is None:
            return problem

        def at(found: re.Match[str]) -> str:
            place = int(found[1])
            return found[0] if place < written else f"{KEY}[{place - written}]"

        path, found = (
            re.sub(r"features\[(\d+)\]", at, text) for text in (problem.path, problem.found)
        )
        return dataclasses.replace(problem, path=path, found=found)


def expand(document: Mapping[str, object]) -> Expansion:
    """Return a document in which nothing is left to take from the catalogue."""
    features = document.get("features", [])
    listed = document.get(KEY, [])
    if not isinstance(features, list) or not (
        listed or any(isinstance(item, dict) and KEY in item for item in features)
    ):
        return Expansion(document)
    problems: list[Problem] = []
    if not isinstance(listed, list):
        problems.append(_problem(KEY, listed, 'a list, such as ["creatinine.last"]'))
        listed = []
    asked = [*features, *({KEY: term} for term in listed)]
    taken: list[object] = []
    failed: set[int] = set()
    for place, item in enumerate(asked):
        if not isinstance(item, dict) or KEY not in item:
            taken.append(item)
            continue
        path = f"features[{place}]" + (f".{KEY}" if place < len(features) else "")
        with_near = len(problems) < _NEAR_MAX
        found = _take(item, place=f"features[{place}]", path=path, with_near=with_near)
        if isinstance(found, dict):
            taken.append(found)
        else:
            taken.append(item)
            failed.add(place)
            problems += found
    full = {key: value for key, value in document.items() if key != KEY} | {"features": taken}
    return Expansion(full, tuple(problems), len(features), frozenset(failed))


def feature_of(term: str, changes: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the full feature of a term that the catalogue has.

    Args:
        term: one of an entry's `terms`.
        changes: keys of `CHANGES` to new values, of any type: the plan's models check them.
    """
    name, _, aggregate = term.partition(".")
    catalogue = read_catalogue()
    return _feature(catalogue.entries[name], aggregate, changes or {}, catalogue.version)


def _take(
    item: Mapping[str, object], *, place: str, path: str, with_near: bool
) -> dict[str, object] | list[Problem]:
    """Return the feature, or why it cannot be taken."""
    catalogue = read_catalogue()
    changes = {key: value for key, value in item.items() if key != KEY}
    problems = [_not_changed(f"{place}.{key}", key) for key in changes if key not in CHANGES]
    term = item[KEY]
    name = term.partition(".")[0] if isinstance(term, str) else ""
    entry = catalogue.entries.get(name)
    if not isinstance(term, str) or entry is None or term not in entry.terms():
        problems.insert(0, _not_there(path, term, entry, with_near=with_near))
    return problems or feature_of(str(term), changes)


def _not_there(path: str, term: object, entry: Entry | None, *, with_near: bool) -> Problem:
    if entry is not None:
        return _problem(path, term, f"one of: {', '.join(entry.terms())}")
    catalogue = read_catalogue()
    expected = f"an entry of feature catalogue {catalogue.version}, such as creatinine.last"
    if not isinstance(term, str) or not with_near or len(term) > _TERM_LENGTH_MAX:
        return _problem(path, term, expected)
    name, _, aggregate = term.partition(".")
    near = [
        match
        + (f".{aggregate}" if f"{match}.{aggregate}" in catalogue.entries[match].terms() else "")
        for match in difflib.get_close_matches(name, catalogue.entries, n=3)
    ]
    todo = f"write {' or '.join(near)}" if near else ""
    return _problem(path, term, expected, todo)


def _not_changed(path: str, key: str) -> Problem:
    near = difflib.get_close_matches(key, CHANGES, n=1)
    return Problem(
        path,
        f"a key that does not go with {KEY}",
        f"one of: {', '.join(CHANGES)}",
        f"write {near[0]}" if near else "remove it, or write the feature out in full",
        "P33",
    )


def _problem(path: str, found: object, expected: str, todo: str = "") -> Problem:
    todo = todo or "choose one that `cohortium-coordinator plan catalogue` lists"
    return Problem(path, shorten(found), expected, todo, "P33")


def _feature(
    entry: Entry, aggregate: str, changes: Mapping[str, object], version: str
) -> dict[str, object]:
    term = f"{entry.name}.{aggregate}" if aggregate else entry.name
    words = f"{entry.says}: {_WORDS[aggregate]}" if aggregate else entry.says
    feature: dict[str, Any] = {
        "kind": "categorical" if entry.kind == "category" else "numeric",
        "name": term.replace(".", "_"),
        "codes": list(entry.plan_codes()),
        "window_days": entry.window_days,
        "missing": "indicator",
    }
    if entry.kind == "category":
        feature["levels"] = list(entry.levels)
    elif entry.kind == "age":
        feature |= _as_measured(entry, "last") | {"missing": "none_allowed"}
    elif aggregate in ("any", "count", "time_since"):
        feature |= _as_events(entry, aggregate, changes)
    else:
        feature |= _as_measured(entry, aggregate)
    feature |= changes
    said = changes.get("description", words)
    if isinstance(said, str):  # what is not text, the plan's models refuse
        feature["description"] = f"{said} (feature catalogue {version}: {term})"
    return feature


def _as_measured(entry: Entry, aggregate: str) -> dict[str, Any]:
    lower, upper = entry.clip or (0.0, 1.0)
    clip: Sequence[float] = (lower, upper)
    if aggregate == "slope":  # from one bound to the middle in a day
        clip = (-(upper - lower) / 2, (upper - lower) / 2)
    found: dict[str, Any] = {
        "unit": entry.unit,
        "analyte": entry.analyte,
        "unit_if_missing": entry.unit_if_missing,
    }
    return {key: value for key, value in found.items() if value is not None} | {
        "aggregate": aggregate,
        "plausible_range": list(entry.plausible_range or (0.0, 1.0)),
        "clip": list(clip),
    }


def _as_events(entry: Entry, aggregate: str, changes: Mapping[str, object]) -> dict[str, Any]:
    """Return what becomes of records as such: no value is looked at, no unit converted."""
    if aggregate == "any":
        return _event_keys("any", "1", 1.0, 1.0) | {"missing": "none_allowed"}
    if aggregate == "count":
        most = _COUNT_MAX[entry.kind]
        return _event_keys("count", "1", 100_000.0, most) | {"missing": "none_allowed"}
    window = changes.get("window_days", entry.window_days)
    days = float(window) if isinstance(window, int) and window > 0 else 1.0
    return _event_keys("time_since", "d", max(days, 36_500.0), days)


def _event_keys(aggregate: str, unit: str, plausible: float, clip: float) -> dict[str, Any]:
    return {
        "aggregate": aggregate,
        "unit": unit,
        "plausible_range": [0.0, plausible],
        "clip": [0.0, clip],
    }
