"""The benchmark's study: sixty features over forty-odd codes, by windows of 30 to 3,650 days."""

from __future__ import annotations

from typing import Any, Final

from common.study.plan import StudyPlan
from common.study.plan_draft import draft_of
from common.study.problems import PlanProblems

LABS: Final = 300
"""Kinds of laboratory tests in the data; the plan asks for `ASKED` of them."""
ASKED: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 23, 26, 30, 35, 40, 45, 50)
ASKED_RARE: Final = (60, 70, 80, 95, 110, 130, 150, 180, 220, 260)
ASKED_DIAGNOSES: Final = (0, 3, 9, 20, 50, 100, 200, 400, 800)
HOSPICE: Final = 30
PLAUSIBLE: Final = (0.0, 5000.0)
SMOKING: Final = ("SNOMED/8517006", "SNOMED/77176002", "SNOMED/266919005")
ECOG: Final = ("0", "1", "2", "3")
UNITS: Final = ("mmol/L", "g/L", "10*9/L", "U/L", "mm[Hg]")
G_PER_DL_AS_G_PER_L: Final = 10.0


def unit_of(lab: int) -> str:
    """Return the unit of a test, in which most hospitals record it."""
    return UNITS[lab % len(UNITS)]


def sixty_features() -> list[dict[str, Any]]:
    """Return the features as a plan writes them."""
    rare = ASKED_RARE
    features: list[dict[str, Any]] = [
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
        _levels("sex", "LOINC/46098-0", ("female", "male"), 365),
        _levels("smoking", "QUESTION/smoking", SMOKING, 3650),
        _levels("ecog", "QUESTION/ecog", ECOG, 365),
    ]
    for aggregate, labs, days in (
        ("last", (*ASKED[:10], *rare[:4]), 365),
        ("mean", ASKED[10:18], 730),
        ("min", (*ASKED[:3], *rare[4:6]), 365),
        ("max", (ASKED[0], ASKED[5], ASKED[18], *rare[6:8]), 30),
        ("median", (ASKED[1], ASKED[12], ASKED[19], rare[8]), 3650),
        ("slope", (ASKED[2], ASKED[4], ASKED[11], rare[9]), 1095),
        ("first", (ASKED[0], ASKED[13], rare[1]), 3650),
    ):
        features += [_numeric(aggregate, f"LAB/{lab}", unit_of(lab), days) for lab in labs]
    diagnoses = ASKED_DIAGNOSES
    for aggregate, chosen, days in (
        ("count", diagnoses[:3], 365),
        ("any", diagnoses[3:7], 1825),
        ("time_since", diagnoses[6:9], 3650),
    ):
        unit = "d" if aggregate == "time_since" else "1"
        features += [_numeric(aggregate, f"DX/{item}", unit, days) for item in chosen]
    features.append(_numeric("count", "Visit/IP", "1", 730))
    features.append(_numeric("count", f"LAB/{ASKED[7]}", "1", 90))
    features.append(_numeric("time_since", "Visit/OP", "d", 1825))
    return features


def sixty_feature_plan() -> StudyPlan:
    """Return the plan."""
    draft = draft_of(
        {
            "plan_version": 1,
            "study": {
                "id": "feature-benchmark",
                "title": "Sixty features",
                "purpose": "To measure",
                "lawful_basis": "None is needed: these patients are invented",
                "contact": "benchmark@example.org",
            },
            "cohort": {
                "description": "Adults at their last visit",
                "age_years_min": 18,
                "age_years_max": 110,
                "index_date": {
                    "description": "A day after the last visit",
                    "codes": ["Visit/IP", "Visit/OP"],
                    "occurrence": "last",
                    "hours_after": 24,
                },
                "exclude": [
                    {"description": "Hospice", "codes": [f"DX/{HOSPICE}"], "days_before": 365}
                ],
            },
            "features": sixty_features(),
            "label": {
                "name": "death",
                "description": "Death within a year",
                "codes": ["MEDS/DEATH"],
                "prediction_window_days": 365,
            },
            "model": {"kind": "logistic_regression"},
            "training": {
                "strategy": {"kind": "fedavg"},
                "rounds": 4,
                "local_steps": 3,
                "sampling_probability": 0.01,
                "optimizer": {"kind": "sgd", "learning_rate": 0.2},
                "quorum": 2,
                "round_deadline_s": 60,
                "update_norm_max": 100.0,
            },
            "evaluation": {"held_out_fraction": 0.25, "score_bins": 10, "releases": 2},
            "privacy": {
                "unit": "patient",
                "neighboring_relation": "add_or_remove_one",
                "epsilon": 3.0,
                "delta": 1e-7,
                "clipping_norm": 1.0,
                "noise_multiplier": "calibrate",
            },
        }
    )
    if draft.plan is None:
        raise PlanProblems(draft.problems, source="the benchmark")
    return draft.plan


def _levels(name: str, code: str, levels: tuple[str, ...], days: int) -> dict[str, Any]:
    return {
        "kind": "categorical",
        "name": name,
        "description": name,
        "codes": [code],
        "levels": list(levels),
        "window_days": days,
    }


def _numeric(aggregate: str, code: str, unit: str, days: int) -> dict[str, Any]:
    return {
        "kind": "numeric",
        "name": f"{code.lower().replace('/', '_')}_{aggregate}",
        "description": f"{code}, {aggregate}",
        "codes": [code],
        "unit": unit,
        "aggregate": aggregate,
        "window_days": days,
        "plausible_range": list(PLAUSIBLE),
        "clip": [0, 500],
    }
