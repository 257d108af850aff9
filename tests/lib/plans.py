"""A study plan that is right in every way, and how to break one thing in it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from common.study.plan import StudyPlan
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems, Problem

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

_DOCUMENT: dict[str, Any] = {
    "plan_version": 1,
    "study": {
        "id": "small-study",
        "title": "A small study",
        "purpose": "To test",
        "lawful_basis": "None is needed: these patients are invented",
        "contact": "tests@example.org",
    },
    "cohort": {"description": "Invented adults", "age_years_min": 18, "age_years_max": 100},
    "features": [
        {
            "kind": "numeric",
            "name": "age",
            "description": "Age",
            "codes": ["LOINC/30525-0"],
            "unit": "a",
            "plausible_range": [0, 120],
            "clip": [20, 90],
            "missing": "none_allowed",
        },
        {
            "kind": "numeric",
            "name": "systolic_bp",
            "description": "Systolic blood pressure",
            "codes": ["LOINC/8480-6"],
            "unit": "mm[Hg]",
            "plausible_range": [50, 300],
            "clip": [90, 200],
        },
        {
            "kind": "categorical",
            "name": "sex",
            "description": "Sex",
            "codes": ["LOINC/46098-0"],
            "levels": ["female", "male"],
        },
    ],
    "label": {
        "name": "stroke",
        "description": "Stroke within a year",
        "codes": ["SNOMED/230690007"],
        "prediction_window_days": 365,
    },
    "fairness_groups": [{"feature": "sex"}],
    "model": {"kind": "logistic_regression"},
    "training": {
        "strategy": {"kind": "fedavg"},
        "rounds": 4,
        "local_steps": 3,
        "sampling_probability": 0.5,
        "optimizer": {"kind": "sgd", "learning_rate": 0.2},
        "quorum": 2,
        "round_deadline_s": 60,
        "update_norm_max": 10.0,
    },
    "evaluation": {"held_out_fraction": 0.25, "score_bins": 10, "releases": 2},
    "privacy": {
        "unit": "patient",
        "neighboring_relation": "add_or_remove_one",
        "epsilon": 3.0,
        "delta": 1e-4,
        "clipping_norm": 1.0,
        "noise_multiplier": "calibrate",
    },
    "monitoring": {"sentinel_features": ["age"], "epsilon_per_report": 1.0},
}


def make_document(**changes: Any) -> dict[str, Any]:
    """Return a valid plan document with some values changed.

    Args:
        changes: path to new value, with two underscores for a dot: `privacy__delta=0.1`. A number
            is a place in a list: `features__0__clip=[1, 0]`. A value of `...` removes the key.
    """
    document = copy.deepcopy(_DOCUMENT)
    for path, value in changes.items():
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("__"))
        here: Any = document
        for key in parents:
            here = here[key]
        if value is ...:
            del here[last]
        else:
            here[last] = copy.deepcopy(value)
    return document


def make_plan(**changes: Any) -> StudyPlan:
    """Return a valid plan with some values changed; raises `PlanProblems` if it is not valid."""
    draft = draft_of(make_document(**changes))
    if draft.plan is None:
        raise PlanProblems(draft.problems, source="of a test")
    return draft.plan


def problems_of(**changes: Any) -> tuple[Problem, ...]:
    """Return every problem of the valid plan with some values changed."""
    return draft_of(make_document(**changes)).problems


def write_plan(path: Path, plan: StudyPlan) -> None:
    """Write a plan as a file that reads back as the same plan."""
    lines: list[str] = []
    _write_table(lines, "", plan.model_dump(mode="json", exclude_none=True))
    path.write_text("\n".join(lines) + "\n")


def _write_table(lines: list[str], name: str, table: dict[str, Any]) -> None:
    def is_tables(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

    for key, value in table.items():
        if not isinstance(value, dict) and not is_tables(value):
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    for key, value in table.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            lines.append(f"[{inner}]")
            _write_table(lines, inner, value)
        elif is_tables(value):
            for item in value:
                lines.append(f"[[{inner}]]")
                _write_table(lines, inner, item)
