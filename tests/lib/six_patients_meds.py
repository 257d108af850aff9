"""The six fictional patients as a MEDS data set: two shards, codes with parents, units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
from meds.schema import CodeMetadataSchema
from pyarrow import parquet

from site_client.sources.events import BIRTH, DEATH, SEX
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.six_patients import EVENTS, Event

STANDARD = [
    ("subject_id", arrow.int64()),
    ("time", arrow.timestamp("us")),
    ("code", arrow.string()),
    ("numeric_value", arrow.float32()),
    ("text_value", arrow.large_string()),
    ("unit", arrow.string()),
]
PARENTS = {
    "LAB//50912//umol/L": ["LOINC/2160-0"],
    "LAB//50971//mmol/L": ["LOINC/2823-3", "OMOP/3023103"],
}
OWN_CODES = {"LOINC/2160-0": "LAB//50912//umol/L", "LOINC/2823-3": "LAB//50971//mmol/L"}


def _site_code(event: Event) -> str:
    if event.code == SEX:
        return {"female": "GENDER//F", "male": "gender//m"}[str(event.text_value)]
    facts = {BIRTH: "MEDS_BIRTH", DEATH: "MEDS_DEATH"}
    own = facts.get(event.code) or OWN_CODES.get(event.code)
    return own or event.code.replace("/", "//", 1)


def _row(event: Event) -> dict[str, Any]:
    return {
        "subject_id": int(event.subject_id),
        "time": event.time,
        "code": _site_code(event),
        "numeric_value": event.numeric_value,
        "text_value": None if event.code == SEX else event.text_value,
        "unit": None if event.code in OWN_CODES else event.unit,
    }


def write_shard(path: Path, rows: list[dict[str, Any]], fields: Any = STANDARD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    full = [{name: row.get(name) for name, _ in fields} for row in rows]
    parquet.write_table(arrow.Table.from_pylist(full, schema=arrow.schema(fields)), path)


def write_codes(folder: Path, parents: dict[str, list[str]]) -> None:
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    rows = [{"code": code, "parent_codes": items} for code, items in parents.items()]
    table = arrow.Table.from_pylist(rows, schema=CodeMetadataSchema.schema())
    parquet.write_table(table, folder / "metadata/codes.parquet")
    (folder / "metadata/dataset.json").write_text(json.dumps({"meds_version": "0.4.1"}))


def write_six(folder: Path) -> Path:
    rows = [_row(event) for event in EVENTS]
    write_shard(folder / "data/train/0.parquet", [row for row in rows if row["subject_id"] < 104])
    # The second shard lacks the optional column of text, as the standard allows.
    late = [row for row in rows if row["subject_id"] >= 104]
    write_shard(folder / "data/held_out/0.parquet", late, [STANDARD[i] for i in (0, 1, 2, 3, 5)])
    write_codes(folder, PARENTS)
    return folder


def source(folder: Path, **declared: Any) -> MedsFolder:
    mapping = MedsMapping.model_validate({"kind": "meds", "path": "meds", **declared})
    return MedsFolder(mapping, folder=folder)


SIX = {
    "unit_column": "unit",
    "unit_in_code": ["LAB//<code>//<unit>"],
    "map_to_parents": ["LOINC"],
}
