"""The six fictional patients as tables of the OMOP CDM, written as CSV 5.4 or Parquet 5.3."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as arrow
from pyarrow import parquet

from site_client.sources.events import BIRTH, DEATH, SEX
from tests.lib.six_patients import EVENTS, Event

Row = dict[str, Any]
Tables = dict[str, list[Row]]

CONCEPTS = {
    "LOINC/2160-0": 3016723,
    "LOINC/2823-3": 3023103,
    "LOINC/8480-6": 3004249,
    "LOINC/8462-4": 3012888,
    "LOINC/72166-2": 43054909,
    "LOINC/11555-0": 3012501,
    "LOINC/26478-8": 3002030,
    "LOINC/2345-7": 3004501,
    "SNOMED/22298006": 4329847,
    "SNOMED/59621000": 320128,
    "SNOMED/8517006": 4310250,
    "SNOMED/274474001": 4198190,
    "SNOMED/57054005": 312327,
    "RxNorm/855332": 40163554,
    "CVX/140": 40213154,
    "UCUM/umol/L": 8749,
    "UCUM/mmol/L": 8753,
    "UCUM/mm[Hg]": 8876,
    "UCUM/%": 8554,
    "UCUM/mg/dL": 8840,
    "Visit/IP": 9201,
    "Visit/OP": 9202,
    "Visit/ER": 9203,
}
ICD10_INFARCTION = 35207702
"""ICD10CM/I21.9, not standard: maps to SNOMED/22298006."""

_PLACES = {
    "SNOMED/22298006": ("condition_occurrence", "condition", "condition_start_date"),
    "SNOMED/59621000": ("condition_occurrence", "condition", "condition_start_date"),
    "SNOMED/274474001": ("procedure_occurrence", "procedure", "procedure_date"),
    "RxNorm/855332": ("drug_exposure", "drug", "drug_exposure_start_date"),
    "CVX/140": ("drug_exposure", "drug", "drug_exposure_start_date"),
    "LOINC/72166-2": ("observation", "observation", "observation_date"),
}
_MEASUREMENT = ("measurement", "measurement", "measurement_date")
_SEX_CONCEPTS = {"male": 8507, "female": 8532}


def six_patients_tables() -> Tables:
    """Return the tables with their rows; a cell is None where the CDM has none."""
    tables: Tables = {
        name: []
        for name in (
            "person",
            "death",
            "visit_occurrence",
            "condition_occurrence",
            "procedure_occurrence",
            "drug_exposure",
            "measurement",
            "observation",
        )
    }
    tables["concept"] = [
        concept(number, *code.split("/", 1), standard="S") for code, number in CONCEPTS.items()
    ]
    tables["concept"].append(concept(ICD10_INFARCTION, "ICD10CM", "I21.9"))
    tables["concept_relationship"] = [maps_to(ICD10_INFARCTION, CONCEPTS["SNOMED/22298006"])]
    tables["concept_ancestor"] = [
        {"ancestor_concept_id": above, "descendant_concept_id": below}
        for above, below in ((4329847, 4329847), (4329847, 312327), (320128, 320128))
    ]
    for event in EVENTS:
        _add(tables, event)
    return tables


def concept(number: int, vocabulary: str, code: str, *, standard: str | None = None) -> Row:
    """Return a row of the concept table."""
    return {
        "concept_id": number,
        "concept_name": f'the "name", of {code}',
        "domain_id": "any",
        "vocabulary_id": vocabulary,
        "concept_class_id": "any",
        "standard_concept": standard,
        "concept_code": code,
        "invalid_reason": None,
    }


def maps_to(source: int, target: int, *, invalid: str | None = None) -> Row:
    """Return a row of the relationship table."""
    return {
        "concept_id_1": source,
        "concept_id_2": target,
        "relationship_id": "Maps to",
        "invalid_reason": invalid,
    }


def _add(tables: Tables, event: Event) -> None:
    person_id = int(event.subject_id)
    if event.code == BIRTH:
        tables["person"].append(_person(person_id, event.time))
    elif event.code == SEX:
        tables["person"][-1]["gender_concept_id"] = _SEX_CONCEPTS[str(event.text_value)]
    elif event.code == DEATH:
        tables["death"].append({"person_id": person_id, **_times("death_date", event.time)})
    elif event.code.startswith("VisitEnd/"):
        tables["visit_occurrence"][-1].update(_times("visit_end_date", event.time))
    elif event.code.startswith("Visit/"):
        visit = {"visit_occurrence_id": len(tables["visit_occurrence"]), "person_id": person_id}
        visit["visit_concept_id"] = CONCEPTS[event.code]
        visit.update(_times("visit_start_date", event.time))
        tables["visit_occurrence"].append(visit)
    else:
        _add_clinical(tables, event)


def _person(person_id: int, born: datetime | None) -> Row:
    assert born is not None
    is_first_of_january = (born.month, born.day) == (1, 1)
    return {
        "person_id": person_id,
        "gender_concept_id": 0,
        "year_of_birth": born.year,
        "month_of_birth": None if is_first_of_january else born.month,
        "day_of_birth": None if is_first_of_january else born.day,
        "birth_datetime": born if person_id % 2 else None,
    }


def _times(column: str, time: datetime | None) -> Row:
    assert time is not None
    at_midnight = (time.hour, time.minute, time.second) == (0, 0, 0)
    return {
        column: time.date(),
        column.replace("date", "datetime"): None if at_midnight else time,
    }


def _add_clinical(tables: Tables, event: Event) -> None:
    table, stem, column = _PLACES.get(
        event.code, ("measurement", "measurement", "measurement_date")
    )
    row: Row = {
        "person_id": int(event.subject_id),
        f"{stem}_concept_id": CONCEPTS[event.code],
        f"{stem}_source_value": "as the ward writes it",
        f"{stem}_source_concept_id": 0,
        **_times(column, event.time),
    }
    if table in ("measurement", "observation"):
        row["value_as_number"] = event.numeric_value
        row["unit_concept_id"] = CONCEPTS.get(f"UCUM/{event.unit}", 0)
        row["unit_source_value"] = event.unit
        row["value_as_concept_id"] = CONCEPTS.get(str(event.text_value), 0)
    if table == "observation":
        row["value_as_string"] = None
    tables[table].append(row)


def csv_bytes(rows: list[Row], *, delimiter: str = ",") -> bytes:
    """Return a table as the CSV of an export."""
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream,
        list(rows[0]),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        quotechar=None if delimiter == "\t" else '"',
    )
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def write_csv(folder: Path, tables: Tables) -> Path:
    """Write CDM 5.4 as CSV: some names in capitals, the vocabulary as Athena's, one file packed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        if name == "concept":
            (folder / "2b_CONCEPT.csv").write_bytes(csv_bytes(rows, delimiter="\t"))
        elif name == "measurement":
            (folder / "measurement.csv.gz").write_bytes(gzip.compress(csv_bytes(rows)))
        elif rows:
            file_name = name.upper() if name.startswith("c") else name
            (folder / f"{file_name}.csv").write_bytes(csv_bytes(rows))
    return folder


def write_parquet(folder: Path, tables: Tables) -> Path:
    """Write CDM 5.3 as Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        if not rows:
            continue
        columns = {column: _typed(column, [row[column] for row in rows]) for column in rows[0]}
        parquet.write_table(arrow.table(columns), folder / f"{name}.parquet")
    return folder


def write_duckdb(folder: Path, tables: Tables) -> Path:
    """Write the tables into a DuckDB file, in capitals."""
    written = write_parquet(folder / "parquet", tables)
    path = folder / "the [site]'s.duckdb"
    with duckdb.connect(str(path)) as connection:
        for file in written.iterdir():
            connection.execute(
                f'CREATE TABLE "{file.stem.upper()}" AS SELECT * FROM read_parquet(?)', [str(file)]
            )
    return path


def _typed(column: str, cells: list[Any]) -> Any:
    if column.endswith("datetime"):
        return arrow.array(cells, arrow.timestamp("us"))
    if column == "value_as_number":
        return arrow.array(cells, arrow.float64())
    present = next((cell for cell in cells if cell is not None), None)
    if isinstance(present, int):
        return arrow.array(cells, arrow.int64())
    if isinstance(present, date):
        return arrow.array(cells, arrow.date32())
    return arrow.array(cells, arrow.string())
