"""A hospital of invented admissions as a MEDS folder, large enough to train on."""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any

import pyarrow as arrow
from pyarrow import parquet

from common.study.plan import StudyPlan
from tests.lib.event_plans import CREATININE, DEATH_IN_A_MONTH
from tests.lib.plans import make_plan

_SCHEMA = arrow.schema(
    [
        ("subject_id", arrow.int64()),
        ("time", arrow.timestamp("us")),
        ("code", arrow.string()),
        ("numeric_value", arrow.float32()),
        ("text_value", arrow.large_string()),
        ("unit", arrow.string()),
    ]
)
_BEGIN = datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC)
_DAY = datetime.timedelta(days=1)

COHORT: dict[str, Any] = {
    "description": "Admitted adults, at their first admission",
    "age_years_min": 18,
    "age_years_max": 100,
    "index_date": {
        "description": "A day after admission",
        "codes": ["Visit/IP"],
        "hours_after": 24,
    },
}
SOURCE = """
[source]
kind = "meds"
path = "meds"
unit_column = "unit"
"""


def admissions_plan(**changes: Any) -> StudyPlan:
    """Return a plan over admissions; see `make_plan`."""
    return make_plan(
        **{"cohort": COHORT, "label": DEATH_IN_A_MONTH, "features__1": CREATININE, **changes}
    )


def write_meds_hospital(folder: Path, *, patients: int, seed: int = 1, first: int = 1) -> None:
    """Write `folder/meds`: births, sexes, admissions, creatinine in two units, deaths."""
    rng = random.Random(seed)
    rows: list[tuple[Any, ...]] = []
    for number in range(first, first + patients):
        admitted = _BEGIN + rng.random() * 300 * _DAY
        age, is_ill = rng.randint(20, 90), rng.random() < 0.4
        rows.append((number, admitted - 365.25 * age * _DAY, "MEDS_BIRTH", None, None, None))
        sex = rng.choice(["F", "M"])
        rows.append((number, None, f"GENDER//{sex}", None, None, None))
        rows.append((number, admitted, "Visit//IP", None, None, None))
        for hour in (1, 9, 20):
            value = rng.gauss(3.0 if is_ill else 1.0, 0.3)
            in_mass = rng.random() < 0.5
            rows.append(
                (
                    number,
                    admitted + hour / 24 * _DAY,
                    "LOINC//2160-0",
                    value if in_mass else value * 88.4,
                    None,
                    "mg/dL" if in_mass else "umol/L",
                )
            )
        if rng.random() < (0.6 if is_ill else 0.1):
            rows.append((number, admitted + 9 * _DAY, "MEDS_DEATH", None, None, None))
    write_meds_shard(folder, "0", rows)
    write_meds_metadata(folder)


def write_meds_shard(folder: Path, name: str, rows: list[tuple[Any, ...]]) -> Path:
    """Write one file of `folder/meds/data`: (subject, time, code, number, text, unit) each."""
    rows = sorted(rows, key=lambda row: (row[0], row[1] or _BEGIN - 40_000 * _DAY))
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    table = arrow.table(
        {
            item.name: arrow.array(column, item.type)
            for item, column in zip(_SCHEMA, columns, strict=True)
        },
        schema=_SCHEMA,
    )
    path = folder / f"meds/data/all/{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def write_meds_metadata(folder: Path) -> None:
    """Write `folder/meds/metadata`, which says nothing of any code."""
    (folder / "meds/metadata").mkdir(parents=True)
    parquet.write_table(
        arrow.table(
            {
                "code": arrow.array([], arrow.string()),
                "description": arrow.array([], arrow.string()),
                "parent_codes": arrow.array([], arrow.list_(arrow.string())),
            }
        ),
        folder / "meds/metadata/codes.parquet",
    )
    (folder / "meds/metadata/dataset.json").write_text("{}")
