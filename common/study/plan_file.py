"""TOML file to `StudyPlan`, and stored bytes back; a wrong plan is told every problem at once."""

from __future__ import annotations

import json
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from common import limits
from common.errors import PlanError
from common.study.catalogue.schema import with_catalogue
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_bytes, plan_digest
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems, Problem, shorten

__all__ = [
    "parse_plan",
    "plan_bytes",
    "plan_digest",
    "plan_from_bytes",
    "plan_schema",
    "read_plan",
]


_DOTS_IN_LINE_MAX: Final = 100


def read_plan(path: Path) -> StudyPlan:
    """Read a plan file and check every rule.

    Args:
        path: of a TOML file of at most `limits.PLAN_FILE_BYTES_MAX` bytes.

    Raises:
        PlanProblems: with all problems at once.
        PlanError: when the file cannot be read at all.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.PLAN_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise PlanError(
            "the study plan cannot be read",
            expected=f"a readable file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="check the path and the permissions",
            number="P1",
        ) from None
    return parse_plan(content, source=path.name)


def parse_plan(content: bytes, *, source: str) -> StudyPlan:
    """Parse the bytes of a plan file and check every rule.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        PlanProblems: with all problems at once.
    """
    try:
        draft = draft_of(_parse_toml(content))
    except _NotTomlError as error:
        raise PlanProblems([error.problem], source=source) from None
    except RecursionError:
        raise PlanProblems([_beyond_reason()], source=source) from None
    if draft.plan is None:
        raise PlanProblems(draft.problems, source=source)
    return draft.plan


@lru_cache(maxsize=16)  # an agent asks for one approved plan in every round; it is frozen
def plan_from_bytes(data: bytes) -> StudyPlan:
    """Return the plan of its canonical bytes, checked against every rule.

    Args:
        data: exactly what `plan_bytes` returned.

    Raises:
        PlanError: for any other bytes; `PlanProblems` when they are a plan that breaks a rule.
    """
    if len(data) > 2 * limits.PLAN_FILE_BYTES_MAX:  # defaults are written out in stored bytes
        raise _refuse_bytes("more bytes than a plan has")
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise _refuse_bytes("bytes that are not a JSON object")
        draft = draft_of(document, is_stored=True)
    except (ValueError, RecursionError):
        raise _refuse_bytes("bytes that are not a JSON object") from None
    if draft.plan is None:
        raise PlanProblems(draft.problems, source="in stored form")
    if plan_bytes(draft.plan) != data:
        raise _refuse_bytes("a plan in another form")
    return draft.plan


def plan_schema() -> dict[str, Any]:
    """Return the JSON schema of a plan file, for editors."""
    schema = with_catalogue(StudyPlan.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _NotTomlError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.path)
        self.problem = problem


def _not_toml(path: str, found: str, todo: str) -> Problem:
    return Problem(path, found, "a text file in TOML 1.0", todo, "P1")


def _beyond_reason() -> Problem:
    return _not_toml("the file", "nesting or a number beyond reason", "simplify it")


def _parse_toml(content: bytes) -> dict[str, Any]:
    most = limits.PLAN_FILE_BYTES_MAX
    if len(content) > most:
        raise _NotTomlError(_not_toml("the file", "more bytes", f"shorten it to {most} bytes"))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = _not_toml(f"line {line}", "bytes that are not UTF-8", "save the file as UTF-8")
        raise _NotTomlError(problem) from None
    # The parser needs memory in the square of the dots of a key, up to all memory there is.
    for number, line_text in enumerate(text.splitlines(), start=1):
        if line_text.count(".") > _DOTS_IN_LINE_MAX:
            found = f"a line with more than {_DOTS_IN_LINE_MAX} dots"
            raise _NotTomlError(_not_toml(f"line {number}", found, "break the text into lines"))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (.*)\)$", str(error))
        found = shorten(re.sub(r" \(at .*\)$", "", str(error)))
        path = place[1] if place is not None else "the file"
        raise _NotTomlError(_not_toml(path, found, "correct the syntax at that place")) from None
    except (RecursionError, ValueError):  # deep nesting; an integer of thousands of digits
        raise _NotTomlError(_beyond_reason()) from None


def _refuse_bytes(arrived: str) -> PlanError:
    return PlanError(
        "stored plan bytes are refused",
        expected="the canonical bytes of a study plan of this version",
        arrived=arrived,
        todo="take the plan from its file again; stored bytes must not be edited",
        number="P1",
    )
