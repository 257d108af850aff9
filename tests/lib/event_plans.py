"""A plan over the events of the six fictional patients."""

from __future__ import annotations

from typing import Any

from common.study.plan import StudyPlan
from site_client.sources.events import DEATH
from tests.lib.plans import make_plan

COHORT: dict[str, Any] = {
    "description": "Everybody who comes to the hospital",
    "age_years_min": 18,
    "age_years_max": 110,
    "index_date": {
        "description": "A day after arrival",
        "codes": ["Visit/IP", "Visit/ER", "Visit/OP"],
        "hours_after": 24,
    },
}
CREATININE: dict[str, Any] = {
    "kind": "numeric",
    "name": "creatinine",
    "description": "Creatinine",
    "codes": ["LOINC/2160-0"],
    "unit": "mg/dL",
    "analyte": "Creatinine",
    "plausible_range": [0, 20],
    "clip": [0, 5],
}
DEATH_IN_A_MONTH = {
    "name": "death",
    "description": "Death within 30 days",
    "codes": [DEATH],
    "prediction_window_days": 30,
}


def plan_for_events(**changes: Any) -> StudyPlan:
    return make_plan(
        **{"cohort": COHORT, "label": DEATH_IN_A_MONTH, "features__1": CREATININE, **changes}
    )
