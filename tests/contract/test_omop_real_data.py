"""Public OMOP tables give as many events as a slow reading with pandas, table by table."""

from __future__ import annotations

import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas
import pytest

from site_client.features.event_patients import read_event_patients
from site_client.sources.events import Exclusion, SourceCounts
from site_client.sources.local_database import open_local
from site_client.sources.omop import OmopFolder
from tests.lib.data_sets import data_set
from tests.lib.plan_by_pandas import assert_same_rows, rows_by_pandas, synthea_plan

NEWEST = datetime.fromisoformat("2300-01-01")  # MIMIC's dates are shifted into the future
SEXES = {"8507": "male", "8532": "female"}
CLASSES = {"9201": "IP", "9203": "ER", "262": "ERIP", "9202": "OP", "32037": "ICU"}
CLINICAL = (
    ("condition_occurrence", "condition", "condition_start_date"),
    ("procedure_occurrence", "procedure", "procedure_date"),
    ("drug_exposure", "drug", "drug_exposure_start_date"),
    ("device_exposure", "device", "device_exposure_start_date"),
    ("measurement", "measurement", "measurement_date"),
    ("observation", "observation", "observation_date"),
)
Frames = dict[str, pandas.DataFrame]


def csv_frames(folder: Path) -> Frames:
    """Return every table as text, empty where there is nothing."""
    frames = {}
    for path in folder.glob("*.csv"):
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
        frame.columns = [column.lower() for column in frame.columns]
        frames[path.stem.lower().removeprefix("2b_")] = frame
    return frames


def records(frame: pandas.DataFrame) -> list[dict[str, str]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy().tolist()]


def reference(frames: Frames) -> tuple[Counter[tuple[Any, ...]], Counter[str]]:
    """Return the events as a multiset before duplicates go, and how many records have no code."""
    concepts = {row["concept_id"]: row for row in records(frames["concept"])}
    targets: dict[str, list[str]] = {}
    for row in records(frames["concept_relationship"]):
        if row["relationship_id"] == "Maps to" and row["invalid_reason"] == "":
            targets.setdefault(row["concept_id_1"], []).append(row["concept_id_2"])

    def standard(number: str) -> list[str]:
        if number in concepts and concepts[number]["standard_concept"] == "S":
            return [number]
        found = [other for other in targets.get(number, []) if number in concepts]
        return [n for n in set(found) if n in concepts and concepts[n]["standard_concept"] == "S"]

    def code(number: str) -> str:
        return f"{concepts[number]['vocabulary_id']}/{concepts[number]['concept_code'].strip()}"

    events: Counter[tuple[Any, ...]] = Counter()
    unmapped: Counter[str] = Counter()
    for row in records(frames["person"]):
        day = f"{row['year_of_birth']}-{row['month_of_birth'] or 1}-{row['day_of_birth'] or 1}"
        born = datetime.strptime(day, "%Y-%m-%d")  # noqa: DTZ007
        events[row["person_id"], born, "MEDS/BIRTH", None, None, None] += 1
        sex = SEXES.get(row["gender_concept_id"], "unknown")
        events[row["person_id"], None, "LOINC/46098-0", None, None, sex] += 1
    for row in records(frames["death"]):
        events[row["person_id"], _time(row, "death_date"), "MEDS/DEATH", None, None, None] += 1
    for row in records(frames["visit_occurrence"]):
        number = row["visit_concept_id"]
        classes = [CLASSES[number]] if number in CLASSES else []
        if not classes:
            found = standard(number) or standard(row["visit_source_concept_id"])
            classes = [CLASSES.get(n, concepts[n]["concept_code"]) for n in found]
        unmapped["visit_occurrence"] += not classes
        for name in classes:
            start, end = (_time(row, f"visit_{side}_date") for side in ("start", "end"))
            events[row["person_id"], start, f"Visit/{name}", None, None, None] += 1
            events[row["person_id"], end, f"VisitEnd/{name}", None, None, None] += 1
    for table, stem, column in CLINICAL:
        rows = records(frames[table]) if table in frames else []
        for row in rows:
            numbers = standard(row[f"{stem}_concept_id"])
            numbers = numbers or standard(row[f"{stem}_source_concept_id"])
            unmapped[table] += not numbers
            value = row.get("value_as_number", "")
            unit = row.get("unit_concept_id", "")
            unit_code = concepts[unit]["concept_code"] if unit in concepts else None
            answer = row.get("value_as_concept_id", "")
            words = code(answer) if answer in concepts else row.get("value_as_string") or None
            for number in numbers:
                events[
                    row["person_id"],
                    _time(row, column),
                    code(number),
                    float(value) if value else None,
                    unit_code or row.get("unit_source_value") or None,
                    words,
                ] += 1
    return events, unmapped


def _time(row: Any, column: str) -> datetime:
    return datetime.fromisoformat(row[column.replace("date", "datetime")] or row[column])


def read(folder: Path, scratch: Path) -> tuple[set[tuple[Any, ...]], SourceCounts]:
    scratch.mkdir()
    with open_local(scratch=scratch) as connection:
        counts = OmopFolder(folder, data_until=NEWEST.date()).write_events(
            connection, "events", scratch=scratch
        )
        rows = connection.sql("SELECT * FROM events").fetchall()
    assert len(set(rows)) == len(rows)
    return set(rows), counts


def assert_agrees(folder: Path, frames: Frames, scratch: Path) -> None:
    found, counts = read(folder, scratch)
    events, unmapped = reference(frames)
    assert Counter(row[2] for row in found) == Counter(event[2] for event in events)
    assert found == set(events)
    for table, records in counts.records.items():
        assert records == (len(frames[table]) if table in frames else 0), table
        listed = {k: v for k, v in counts.unmapped.items() if k.startswith(f"{table} ")}
        assert sum(listed.values()) == unmapped[table], table
    assert counts.excluded.get(Exclusion.UNMAPPED, 0) == unmapped.total()
    assert counts.excluded.get(Exclusion.DUPLICATE, 0) == events.total() - len(events)
    assert set(counts.excluded) <= {Exclusion.UNMAPPED, Exclusion.DUPLICATE}


@pytest.fixture(scope="module")
def synthea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthea27nj")
    for name in ("Synthea27Nj_5.4", "Synthea27NjParquet_5.4"):
        with zipfile.ZipFile(data_set("omop_synthea27nj") / f"{name}.zip") as archive:
            archive.extractall(folder / name)
    return folder


def test_synthea_as_csv_agrees_with_pandas(synthea: Path, tmp_path: Path) -> None:
    folder = synthea / "Synthea27Nj_5.4"
    assert_agrees(folder, csv_frames(folder), tmp_path / "scratch")


def test_synthea_as_parquet_gives_the_same_events_as_csv(synthea: Path, tmp_path: Path) -> None:
    parquet = synthea / "Synthea27NjParquet_5.4" / "Synthea27NjParquet"
    found, counts = read(parquet, tmp_path / "parquet")
    of_csv, csv_counts = read(synthea / "Synthea27Nj_5.4", tmp_path / "csv")
    assert found == of_csv
    assert counts == csv_counts


def test_the_mimic_demo_agrees_with_pandas(tmp_path: Path) -> None:
    folder = data_set("omop_mimic4_demo")
    assert_agrees(folder, csv_frames(folder), tmp_path / "scratch")


@pytest.mark.slow
def test_a_plans_rows_from_synthea_are_those_of_pandas(synthea: Path, tmp_path: Path) -> None:
    folder = synthea / "Synthea27Nj_5.4"
    frames = csv_frames(folder)
    events, _ = reference(frames)
    concept = frames["concept"].set_index("concept_id")
    codes = concept["vocabulary_id"] + "/" + concept["concept_code"]
    narrower: dict[str, set[str]] = {}
    for row in records(frames["concept_ancestor"]):
        above, below = row["ancestor_concept_id"], row["descendant_concept_id"]
        if above in codes and below in codes:
            narrower.setdefault(codes[above], set()).add(codes[below])
    source = OmopFolder(folder, data_until=NEWEST.date())
    found = read_event_patients(synthea_plan(), source, scratch=tmp_path)
    assert_same_rows(found, rows_by_pandas(events, narrower))
