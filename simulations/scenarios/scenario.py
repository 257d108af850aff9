"""A scenario and its TOML file: a plan, hospitals, operations and what is expected at the end."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from common.study.plan import NumericFeature, StudyPlan
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems
from simulations.scenarios.hospitals import site_id_of
from simulations.scenarios.operations import (
    COORDINATOR,
    Drift,
    Kill,
    Operation,
    Restart,
    UnitChange,
    in_words,
    names_of,
)
from simulations.scenarios.operations import Clock as ClockJump

OPERATIONS_MAX: Final = 1000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Expectations(_Part):
    """What must be so at the end.

    Args:
        state: of the study.
        auroc_min: of the final model on all sites' held-out patients, as they were at the start.
        backdoor_max: largest share of patients that the backdoor's trigger may turn to high risk.
    """

    state: Literal["finished", "failed", "running"] | None = None
    auroc_min: Annotated[float, Field(ge=0, le=1)] | None = None
    backdoor_max: Annotated[float, Field(ge=0, le=1)] | None = None


class Scenario(_Part):
    """One scenario.

    Args:
        title: one line.
        story: what happens, for a reader.
        patients: number in each hospital; the hospitals are hospital-1, hospital-2, ...
        operations: in their order; afterwards the rounds that are left are run.
        expect: at the end.
    """

    title: Annotated[str, Field(min_length=1, max_length=200)]
    story: Annotated[str, Field(max_length=4000)] = ""
    patients: Annotated[
        tuple[Annotated[int, Field(ge=20, le=100_000)], ...],
        Field(min_length=2, max_length=200, strict=False),
    ]
    operations: Annotated[tuple[Operation, ...], Field(max_length=OPERATIONS_MAX, strict=False)]
    expect: Expectations = Expectations()


def read_scenario(path: Path) -> tuple[Scenario, StudyPlan]:
    """Read a scenario's file and its plan.

    The file has the fields of `Scenario`, with `[[operation]]` for each operation, `plan`, a path
    beside the file, and `[plan_changes]`, such as `"training.rounds" = 3`.

    Raises:
        ConfigError: when the file is not a scenario, or names what its plan or hospitals lack.
        PlanProblems: when the changed plan breaks a rule.
    """
    document = _read(path)
    plan_path, changes = document.pop("plan", None), document.pop("plan_changes", {})
    document["operations"] = document.pop("operation", [])
    if not isinstance(plan_path, str) or not isinstance(changes, Mapping):
        raise _refuse(
            path, "`plan`, the path of a plan, and a table `plan_changes`", "another form"
        )
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _refuse(
            path, "a scenario as in docs/scenarios.md", f"{place}: {first['msg']}"
        ) from None
    plan = changed_plan(_read(path.parent / plan_path), changes, source=plan_path)
    check_scenario(scenario, plan, source=path.name)
    return scenario, plan


def changed_plan(
    document: dict[str, Any], changes: Mapping[str, object], *, source: str
) -> StudyPlan:
    """Return the plan of a document with some values changed; raises `PlanProblems`, `ConfigError`.

    Args:
        document: as parsed from a plan's TOML.
        changes: path to new value, such as "training.rounds" to 3.
        source: its name, for messages.
    """
    for path, value in changes.items():
        *parents, last = path.split(".")
        here: Any = document
        for key in parents:
            here = here.setdefault(key, {}) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            raise _refuse(Path(source), "the path of a value in a table of the plan", path)
        here[last] = value
    draft = draft_of(document)
    if draft.plan is None:
        raise PlanProblems(draft.problems, source=source)
    return draft.plan


def check_scenario(scenario: Scenario, plan: StudyPlan, *, source: str) -> None:
    """Refuse operations on sites and features that are not there; raises `ConfigError`."""
    sites = {site_id_of(place) for place in range(len(scenario.patients))}
    numeric = {item.name for item in plan.features if isinstance(item, NumericFeature)}
    for place, operation in enumerate(scenario.operations, start=1):
        allowed = sites | (
            {COORDINATOR} if isinstance(operation, Kill | Restart | ClockJump) else set()
        )
        wrong = [name for name in names_of(operation) if name not in allowed]
        if wrong:
            raise _refuse(
                Path(source),
                f"one of {', '.join(sorted(allowed))}",
                f"{wrong[0]} in operation {place} ({in_words(operation)})",
            )
        if isinstance(operation, Drift | UnitChange) and operation.feature not in numeric:
            raise _refuse(
                Path(source),
                f"a numeric feature: {', '.join(sorted(numeric))}",
                f"{operation.feature} in operation {place}",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (OSError, ValueError) as error:
        raise _refuse(path, "a readable TOML file", type(error).__name__) from None


def _refuse(path: Path, expected: str, arrived: str) -> ConfigError:
    return ConfigError(
        f"the scenario {path.name} is refused",
        expected=expected,
        arrived=arrived,
        todo="correct it; docs/scenarios.md describes every operation",
    )
