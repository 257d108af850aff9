"""A document as far as it is a plan: what is well formed, and every problem of what is not.

A wrong plan gets every problem at once. So the parts that are well formed are kept, and the rules
that need only those are still asked.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from common.ids import SLUG_RULE
from common.study.catalogue.expansion import expand
from common.study.plan import Feature, StudyPlan
from common.study.problems import Problem, shorten
from common.study.rules import EACH_FEATURE, check_rules

_FORMS: Final[dict[str, str]] = {
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$": SLUG_RULE,
    r"^[a-z][a-z0-9_]{0,62}$": (
        "1 to 63 lower-case letters, digits and underscores, the first a letter"
    ),
    r"^[A-Za-z0-9_.+-]{1,40}/[^\s/][^\n]{0,120}$": "SYSTEM/code, such as LOINC/8480-6",
}
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ALLOWED: Final = frozenset("\n\t\u200c\u200d\u200e\u200f")
"""Line breaks, and the joiners and marks without which Persian, Hindi or Hebrew cannot be written.
Other invisible characters could show a steward another text than the one that is approved."""


@dataclass(frozen=True)
class PlanDraft:
    """What reading a document gave.

    Args:
        plan: the plan when it has no problem at all, else None.
        problems: every problem, in the order of the rules' numbers.
    """

    plan: StudyPlan | None
    problems: tuple[Problem, ...]


def draft_of(document: Mapping[str, object], *, is_stored: bool = False) -> PlanDraft:
    """Check a document against every rule.

    Args:
        document: as parsed from TOML, or from stored JSON.
        is_stored: whether real numbers are written as text, as in `plan_bytes`; such a document
            holds every definition and takes none from the catalogue.
    """
    if is_stored:
        return _draft_of(document, is_stored=True)
    expansion = expand(document)
    draft = _draft_of(expansion.document, is_stored=False)
    problems = expansion.in_file(draft.problems)
    problems.sort(key=lambda problem: int(problem.number[1:]))
    return PlanDraft(plan=None if problems else draft.plan, problems=tuple(problems))


def _draft_of(document: Mapping[str, object], *, is_stored: bool) -> PlanDraft:
    problems = list(_text_problems(document))
    plan: StudyPlan | None = None
    try:
        plan = StudyPlan.model_validate(document, strict=False if is_stored else None)
    except ValidationError as error:
        problems.extend(_shape_problems(error, document))
        if not is_stored:
            problems.extend(_rule_problems_of_parts(document))
    else:
        problems.extend(check_rules(plan))
    problems.sort(key=lambda problem: int(problem.number[1:]))  # stable: the file's order within
    return PlanDraft(plan=None if problems else plan, problems=tuple(problems))


def _rule_problems_of_parts(document: Mapping[str, object]) -> Iterator[Problem]:
    parts, complete = _well_formed_parts(document)
    features = document.get("features")
    places: list[int] = []
    if isinstance(features, Sequence) and not isinstance(features, str):
        kept = [(place, _validated(_feature_type(), item)) for place, item in enumerate(features)]
        places = [place for place, feature in kept if feature is not None]
        parts["features"] = tuple(feature for _, feature in kept if feature is not None)
        complete.add(EACH_FEATURE)
    plan = StudyPlan.model_construct(**parts)
    for problem in check_rules(plan, complete=frozenset(complete)):
        # Rules count the features that are well formed; the reader counts those in the file.
        path = re.sub(
            r"features\[(\d+)\]", lambda m: f"features[{places[int(m[1])]}]", problem.path
        )
        found = re.sub(
            r"features\[(\d+)\]", lambda m: f"features[{places[int(m[1])]}]", problem.found
        )
        yield Problem(path, found, problem.expected, problem.todo, problem.number)


def _well_formed_parts(document: Mapping[str, object]) -> tuple[dict[str, Any], set[str]]:
    """Return the parts that rules may look at, and which needs these meet.

    A part that is not well formed is kept with those of its fields that are.
    """
    parts: dict[str, Any] = {}
    complete: set[str] = set()
    for name, field in StudyPlan.model_fields.items():
        models = tuple(_members(field.annotation))
        keys = tuple(models[0].model_fields) if len(models) == 1 else ()
        if name not in document and not field.is_required():
            parts[name] = field.get_default(call_default_factory=True)
        elif (value := _validated(_type_of(StudyPlan, name), document.get(name))) is not None:
            parts[name] = value
        else:
            table = document.get(name)
            if keys and isinstance(table, Mapping):
                kept = _well_formed_fields(models[0], table)
                parts[name] = models[0].model_construct(**kept)
                complete.update(f"{name}.{key}" for key in kept)
            continue
        complete.update((name, *(f"{name}.{key}" for key in keys)))
    return parts, complete


def _well_formed_fields(model: type[BaseModel], table: Mapping[str, object]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name not in table:
            if not field.is_required():
                kept[name] = field.get_default(call_default_factory=True)
        elif (value := _validated(_type_of(model, name), table[name])) is not None:
            kept[name] = value
    return kept


@lru_cache(maxsize=256)
def _type_of(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Return what validates one field of a model as the model itself would."""
    field = model.model_fields[name]
    is_part = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    field_type: Any = field.annotation if is_part else Annotated[field.annotation, field]
    return TypeAdapter(field_type, config=None if is_part else model.model_config)


@lru_cache(maxsize=1)
def _feature_type() -> TypeAdapter[Any]:
    return TypeAdapter(Feature)


def _validated(adapter: TypeAdapter[Any], value: object) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def _text_problems(value: object, path: str = "") -> Iterator[Problem]:
    if isinstance(value, str):
        hidden = {
            character
            for character in value
            if unicodedata.category(character) in _INVISIBLE and character not in _ALLOWED
        }
        if hidden or not value.strip():
            names = ", ".join(sorted(f"U+{ord(character):04X}" for character in hidden))
            yield Problem(
                path,
                f"invisible characters {names}" if hidden else "blank text",
                "text of visible characters",
                "type the text again by hand; do not paste it",
                "P5",
            )
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _text_problems(item, _below(path, str(key)))
    elif isinstance(value, Sequence):
        for place, item in enumerate(value):
            yield from _text_problems(item, f"{path}[{place}]")


def _shape_problems(error: ValidationError, document: Mapping[str, object]) -> list[Problem]:
    """Return one problem for each place in the file, in the file's order."""
    by_place: dict[tuple[str, str], Problem] = {}
    details = error.errors(include_url=False)
    locations = {
        detail["loc"][: depth + 1] for detail in details for depth in range(len(detail["loc"]) - 1)
    }
    for detail in details:
        if detail["type"] == "too_short" and detail["loc"] in locations:
            continue  # items of the list are wrong, and said so, rather than missing
        problem = _shape_problem(detail, document)
        key = (problem.number, problem.path)
        known = by_place.get(key)
        if known is not None and problem.expected not in known.expected:  # members of a union
            expected = f"{known.expected}, or {problem.expected}"
            problem = Problem(known.path, known.found, expected, known.todo, known.number)
        by_place[key] = problem if known is None or problem.found == known.found else known
    return list(by_place.values())


def _shape_problem(detail: ErrorDetails, document: Mapping[str, object]) -> Problem:
    path, keys = _path_in_file(detail["loc"], document)
    kind, found, context = detail["type"], shorten(detail["input"]), detail.get("ctx", {})
    expected = re.sub(r"^(Input|Value|String|Tuple) should (be |have )?", "", detail["msg"])
    todo = "correct the value"
    match kind:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(detail["loc"][-1]), keys, n=1)
            todo = f"write {near[0]}" if near else "remove it"
            return Problem(path, "an unknown key", f"one of: {', '.join(keys)}", todo, "P2")
        case "missing":
            return Problem(path, "nothing", "a value", "add it", "P3")
        case "union_tag_not_found":
            return Problem(f"{path}.kind", "nothing", "a value", "add it", "P3")
        case "union_tag_invalid":
            path, found = f"{path}.kind", shorten(context.get("tag"))
            expected = f"one of: {context.get('expected_tags')}"
        case "string_pattern_mismatch":
            expected = _FORMS.get(str(context.get("pattern")), expected)
        case "model_type" | "model_attributes_type":
            expected, todo = "a table of keys", f"write [{path}] and its keys"
    return Problem(path, found, expected, todo, "P4")


def _path_in_file(
    location: Sequence[int | str], document: Mapping[str, object]
) -> tuple[str, tuple[str, ...]]:
    """Return the path as the file has it, and the keys that are allowed beside its last one.

    The library's location also names the member of a union that it tried; the file does not.
    """
    path = ""
    keys: tuple[str, ...] = ()
    model: object = StudyPlan
    current: object = document
    for part in location:
        if not isinstance(current, Mapping | list | tuple):
            break  # what follows names members of a union of plain values
        if isinstance(current, Mapping) and part not in current and part == current.get("kind"):
            model = _member(model, str(part))
            continue
        keys = _keys(model)
        path = f"{path}[{part}]" if isinstance(part, int) else _below(path, part)
        model = _field(model, part)
        current = _item(current, part)
    return path, keys


def _below(path: str, key: str) -> str:
    # A key of the file may hold anything; what is shown must not move the reader's cursor.
    shown = key if key.isprintable() and len(key) <= 80 else shorten(key)
    return f"{path}.{shown}" if path else shown


def _item(value: object, part: int | str) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _members(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield every model that an annotation can be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for member in get_args(annotation):
            yield from _members(member)


def _member(annotation: object, kind: str) -> object:
    for model in _members(annotation):
        field = model.model_fields.get("kind")
        if field is not None and get_args(field.annotation) == (kind,):
            return model
    return None


def _keys(annotation: object) -> tuple[str, ...]:
    models = tuple(_members(annotation))
    return tuple(models[0].model_fields) if len(models) == 1 else ()


def _field(annotation: object, part: int | str) -> object:
    if isinstance(part, int):
        return annotation  # an item of a list: its members are found through the annotation
    models = tuple(_members(annotation))
    field = models[0].model_fields.get(part) if len(models) == 1 else None
    return field.annotation if field is not None else None
