"""One problem in a study plan, and the error that carries every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import PlanError

_SHOWN_MAX: Final = 200  # a reader corrects these first; all of them are in `problems`


@dataclass(frozen=True)
class Problem:
    """One thing in a plan that is not allowed.

    Args:
        path: where in the file, such as "privacy.delta" or "features[3].clip" (counted from 0).
        found: what is there.
        expected: what would be allowed.
        todo: what to do.
        number: of the rule in `common.study.rules.RULES`, such as "P9".
    """

    path: str
    found: str
    expected: str
    todo: str
    number: str = ""

    def as_record(self) -> dict[str, str]:
        """Return the problem as a flat record for `--json` output."""
        return {
            "number": self.number,
            "path": self.path,
            "found": self.found,
            "expected": self.expected,
            "to_do": self.todo,
        }


class PlanProblems(PlanError):
    """Every problem of one plan.

    Args:
        problems: at least one, in the order of their rules.
        source: the file's name, or what else the plan came from.
    """

    def __init__(self, problems: Sequence[Problem], *, source: str) -> None:
        self.problems = tuple(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"the study plan {source} has {len(self.problems)} {noun}",
            expected="a plan that meets every rule of docs/study-plan.md",
            arrived="; ".join(f"[{item.number}] {item.path}" for item in self._shown()),
            todo="correct them and run `cohortium-coordinator plan check` again",
            number=self.problems[0].number if len(self.problems) == 1 else "",
        )

    def __str__(self) -> str:
        lines = [self.refused]
        for item in self._shown():
            lines.append(f"  [{item.number}] {item.path}")
            lines.append(f"      found:    {item.found}")
            lines.append(f"      expected: {item.expected}")
            lines.append(f"      to do:    {item.todo}")
        hidden = len(self.problems) - len(self._shown())
        if hidden:
            lines.append(f"  and {hidden} more")
        return "\n".join(lines)

    def _shown(self) -> tuple[Problem, ...]:
        return self.problems[:_SHOWN_MAX]


def shorten(value: object) -> str:
    """Return a value of the plan as short text that fits a line, without control characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
