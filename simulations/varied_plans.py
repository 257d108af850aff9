"""A plan with some of its fields varied: every combination is a cell, and a checked plan."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common import limits
from common.errors import AccountingError, ConfigError
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems, Problem
from common.study.training_rules import honest_update_norm

EPSILON: Final = "privacy.epsilon"
_NORM_BOUND: Final = "training.update_norm_max"


@dataclass(frozen=True)
class Cell:
    """One combination of varied values.

    Args:
        values: field path to value, in the order in which they were asked for.
        plan: with these values; at an infinite epsilon with the plan's own.
        is_noiseless: whether epsilon is infinite: the same plan, no noise drawn.
        norm_bound_raised: whether `training.update_norm_max` had to grow for this cell's noise.
    """

    values: Mapping[str, Any]
    plan: StudyPlan
    is_noiseless: bool
    norm_bound_raised: bool = False

    @property
    def name(self) -> str:
        """Return the values in words, such as "privacy.epsilon=1, training.rounds=20"."""
        return ", ".join(f"{path}={in_words(value)}" for path, value in self.values.items())

    @property
    def epsilon(self) -> float:
        """Return the promised epsilon; infinity without noise."""
        return math.inf if self.is_noiseless else self.plan.privacy.epsilon


def read_vary(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each path of several `--vary`; raises `ConfigError`."""
    found = [read_values(text) for text in texts]
    if len(dict(found)) < len(found):
        raise ConfigError(
            "what to vary is refused",
            expected="each field once, with all its values",
            arrived="a field twice",
            todo="write PATH=VALUE,VALUE,VALUE",
        )
    return dict(found)


def read_values(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return the path and the values of one `--vary PATH=VALUE,VALUE`.

    Values are TOML's (`inf`, `20`, `{kind = "mlp", hidden = [16]}`), and bare words texts. Raises
    `ConfigError`.
    """
    path, sign, listed = text.partition("=")
    if not sign or not path.strip() or not listed.strip():
        raise ConfigError(
            "what to vary is refused",
            expected="a plan field and its values, such as privacy.epsilon=0.5,1,2,inf",
            arrived=text[:200],
            todo="write PATH=VALUE,VALUE",
        )
    # A comma inside brackets or quotes belongs to its value.
    items = re.findall(r'(?:"[^"]*"|\{[^{}]*\}|\[[^\[\]]*\]|[^,"{\[])+', listed)
    if ",".join(items) != listed:
        raise ConfigError(
            "what to vary is refused",
            expected="values with a comma between each two, every bracket and quote closed",
            arrived=listed[:200],
            todo="correct the values",
        )
    return path.strip(), tuple(_toml_or_text(item.strip()) for item in items)


def _toml_or_text(item: str) -> Any:
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"value = {item}")["value"]
    return item


def in_words(value: Any) -> str:
    """Return a value as a person writes it."""
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:g}"
    if isinstance(value, Mapping):
        if set(value) == {"kind"}:
            return str(value["kind"])
        return "{" + ", ".join(f"{key}: {in_words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(in_words(item) for item in value) + "]"
    return str(value)


def make_cells(plan: StudyPlan, vary: Mapping[str, Sequence[Any]]) -> tuple[Cell, ...]:
    """Return every combination of the varied values, the last path fastest.

    Monitoring comes after the study and is left out. Where a cell's noise needs a larger
    `training.update_norm_max` and nobody varies it, it is raised, as its author would do.

    Args:
        plan: checked.
        vary: field path (`privacy.epsilon`, `training.strategy`, `features.age.clip`) to values;
            infinity is a value of `privacy.epsilon` alone. A word for a table that has a `kind` is
            its kind.

    Raises:
        PlanProblems: with every problem of every cell, in the words of the plan rules, each path
            after its cell.
        ConfigError: when nothing is varied, or two cells are one plan.
    """
    if not vary or not all(vary.values()):
        raise ConfigError(
            "a sweep is refused",
            expected="at least one plan field with at least one value",
            arrived=", ".join(path for path, values in vary.items() if not values) or "none",
            todo="name what to vary, such as privacy.epsilon=0.5,1,2,inf",
        )
    document = plan.model_dump(mode="json", exclude_none=True, exclude={"monitoring"})
    cells: list[Cell] = []
    problems: list[Problem] = []
    for values in itertools.product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        try:
            cells.append(_cell(plan, document, chosen))
        except PlanProblems as found:
            problems += _of_cell(chosen, found.problems)
    if problems:
        raise PlanProblems(problems, source=f"{plan.study.id}, as the sweep varies it,")
    _refuse_twins(cells)
    return tuple(cells)


def _cell(plan: StudyPlan, document: Mapping[str, Any], values: Mapping[str, Any]) -> Cell:
    is_noiseless = math.isinf(_number(values.get(EPSILON)))
    changed = dict(document)
    for path, value in values.items():
        if not (path == EPSILON and is_noiseless):
            changed = _with(changed, path.split("."), value)
    if _NORM_BOUND in values:
        return Cell(values, _checked(changed, plan), is_noiseless)
    bound = _bound_needed(changed)
    raised = bound > float(changed["training"]["update_norm_max"])
    if raised:
        changed = _with(changed, _NORM_BOUND.split("."), bound)
    return Cell(values, _checked(changed, plan), is_noiseless, norm_bound_raised=raised)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _with(here: Any, path: Sequence[str], value: Any) -> Any:
    """Return a document with another value at a path; a new path makes the tables it needs."""
    if not path:
        known = here.get("kind") if isinstance(here, Mapping) else None
        return {"kind": value} if isinstance(value, str) and known is not None else value
    if isinstance(here, list):
        place = _place(here, path[0])
        return [_with(it, path[1:], value) if at == place else it for at, it in enumerate(here)]
    table = dict(here) if isinstance(here, Mapping) else {}
    return {**table, path[0]: _with(table.get(path[0], {}), path[1:], value)}


def _place(items: Sequence[Any], word: str) -> int:
    """Return which item of a list a word means: its place from 0, or its name."""
    names = [str(item.get("name", item.get("feature"))) for item in items if isinstance(item, dict)]
    if word in names:
        return names.index(word)
    if word.isdigit() and int(word) < len(items):
        return int(word)
    raise ConfigError(
        "a varied field is refused",
        expected=f"a place from 0 to {len(items) - 1}, or a name: {', '.join(names)}",
        arrived=word[:80],
        todo="correct the path of the field",
    )


def _bound_needed(document: Mapping[str, Any]) -> float:
    """Return the norm bound that honest updates need; 0 where the rules tell what is wrong."""
    draft = draft_of(_with(document, _NORM_BOUND.split("."), 1e12))
    if draft.plan is None:
        return 0.0
    with contextlib.suppress(AccountingError):
        return 1.01 * honest_update_norm(draft.plan, cohort_size=limits.COHORT_SIZE_MIN)
    return 0.0


def _checked(document: Mapping[str, Any], plan: StudyPlan) -> StudyPlan:
    draft = draft_of(document)
    if draft.plan is None:
        raise PlanProblems(draft.problems, source=plan.study.id)
    return draft.plan


def _of_cell(values: Mapping[str, Any], problems: Sequence[Problem]) -> Iterator[Problem]:
    where = ", ".join(f"{path}={in_words(value)}" for path, value in values.items())
    for item in problems:
        yield Problem(f"{where}: {item.path}", item.found, item.expected, item.todo, item.number)


def _refuse_twins(cells: Sequence[Cell]) -> None:
    seen: dict[tuple[str, bool], Cell] = {}
    for cell in cells:
        twin = seen.setdefault((plan_digest(cell.plan), cell.is_noiseless), cell)
        if twin is not cell:
            raise ConfigError(
                "a sweep is refused",
                expected="cells of different plans",
                arrived=f"{twin.name} and {cell.name} are one plan",
                todo="leave one of the two values out",
            )
