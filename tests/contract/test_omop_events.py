"""A site's OMOP tables give the event table, or one error; no patient's value is in any message."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as arrow
import pytest
from pyarrow import parquet

from common.errors import DataSourceError
from site_client.sources.events import Exclusion
from site_client.sources.local_database import open_local
from site_client.sources.omop import OmopFolder
from tests.lib.omop_reading import MARKER, read, read_tables, refused
from tests.lib.six_patients import events_in, expected
from tests.lib.six_patients_omop import (
    CONCEPTS,
    ICD10_INFARCTION,
    Row,
    concept,
    maps_to,
    six_patients_tables,
    write_csv,
    write_parquet,
)

WRITERS = {"csv": write_csv, "parquet": write_parquet}


def condition(concept_id: int | None, source_concept_id: int | None = 0) -> Row:
    return {
        "person_id": 105,
        "condition_concept_id": concept_id,
        "condition_source_value": MARKER,
        "condition_source_concept_id": source_concept_id,
        "condition_start_date": "2020-02-02",
        "condition_start_datetime": None,
    }


@pytest.mark.parametrize("form", WRITERS)
def test_the_six_patients_come_out_of_omop_as_they_are(form: str, tmp_path: Path) -> None:
    folder = WRITERS[form](tmp_path / "a [folder]*?'s", six_patients_tables())
    result = read(folder, tmp_path / "scratch [1]")
    assert result.events == expected()
    assert (result.counts.excluded, result.counts.unmapped) == ({}, {})
    assert result.counts.records["measurement"] == 9
    assert result.counts.records["device_exposure"] == 0


def test_nothing_but_the_events_stays_in_the_scratch_folder(tmp_path: Path) -> None:
    read(write_csv(tmp_path / "cdm", six_patients_tables()), tmp_path / "scratch")
    names = [path.name for path in (tmp_path / "scratch").iterdir()]
    assert len(names) == 1
    assert names[0].startswith("events_")


def test_a_second_build_in_one_scratch_folder_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    tables = six_patients_tables()
    whole = OmopFolder(write_csv(tmp_path / "whole", tables))
    del tables["measurement"]
    less = OmopFolder(write_csv(tmp_path / "less", tables))
    with open_local(scratch=tmp_path) as connection:
        whole.write_events(connection, "first", scratch=tmp_path)
        less.write_events(connection, "second", scratch=tmp_path)
        assert events_in(connection, "first") == expected()
        assert len(events_in(connection, "second")) == len(expected()) - 9


def test_events_that_cannot_be_written_are_one_error_and_leave_nothing(tmp_path: Path) -> None:
    source = OmopFolder(write_csv(tmp_path / "cdm", six_patients_tables()))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_local(scratch=scratch) as connection:
        connection.execute("CREATE TABLE events (taken INTEGER)")
        with pytest.raises(DataSourceError) as caught:
            source.write_events(connection, "events", scratch=scratch)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert list(scratch.iterdir()) == []


def test_a_concept_that_is_not_standard_maps_by_its_relationships(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["condition_occurrence"] = [condition(ICD10_INFARCTION), condition(0, ICD10_INFARCTION)]
    result = read_tables(tables, tmp_path)
    assert len(result.of("SNOMED/22298006")) == 1
    assert result.counts.excluded == {Exclusion.DUPLICATE: 1}


def test_a_concept_that_maps_to_two_gives_an_event_for_each(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["concept_relationship"].append(maps_to(ICD10_INFARCTION, CONCEPTS["SNOMED/59621000"]))
    tables["concept_relationship"].append(
        maps_to(ICD10_INFARCTION, CONCEPTS["SNOMED/57054005"], invalid="D")
    )
    tables["condition_occurrence"] = [condition(ICD10_INFARCTION)]
    found = {e.code for e in read_tables(tables, tmp_path).events if e.code.startswith("SNOMED")}
    assert found == {"SNOMED/22298006", "SNOMED/59621000", "SNOMED/274474001"}


def test_without_relationships_only_standard_concepts_map(tmp_path: Path) -> None:
    tables = six_patients_tables()
    del tables["concept_relationship"]
    tables["condition_occurrence"].append(condition(0, ICD10_INFARCTION))
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.unmapped == {"condition_occurrence ICD10CM/I21.9": 1}


def test_a_cycle_of_relationships_ends_and_its_concepts_are_unmapped(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["concept"] += [concept(71, "ICD10CM", "A"), concept(72, "ICD10CM", "B")]
    tables["concept"] += [concept(73, "ICD10CM", "C")]
    tables["concept_relationship"] += [maps_to(71, 72), maps_to(72, 71), maps_to(73, 73)]
    tables["condition_occurrence"] += [condition(71), condition(73)]
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.unmapped == {
        "condition_occurrence ICD10CM/A": 1,
        "condition_occurrence ICD10CM/C": 1,
    }


def test_a_cycle_with_a_way_out_maps_to_the_standard_concept(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["concept"] += [concept(71, "ICD10CM", "A"), concept(72, "ICD10CM", "B")]
    tables["concept_relationship"] += [maps_to(71, 72), maps_to(72, 71)]
    tables["concept_relationship"].append(maps_to(72, CONCEPTS["SNOMED/57054005"]))
    tables["condition_occurrence"].append(condition(71))
    assert len(read_tables(tables, tmp_path).of("SNOMED/57054005")) == 1


def test_what_does_not_map_is_counted_and_no_source_value_is_in_the_counts(tmp_path: Path) -> None:
    tables = six_patients_tables()
    empty = condition(None, None) | {"condition_source_value": None}
    tables["condition_occurrence"] += [condition(999_999), condition(0), condition(None), empty]
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.excluded == {Exclusion.UNMAPPED: 3, Exclusion.NO_CODE: 1}
    assert result.counts.unmapped == {
        "condition_occurrence (concept not in the vocabulary)": 1,
        "condition_occurrence (source value not in the vocabulary)": 2,
    }


def test_a_visit_of_another_class_has_the_code_of_its_standard_concept(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["concept"] += [
        concept(581476, "Visit", "OMOP4822458", standard="S"),
        concept(2001, "ward", "emergency"),
        concept(2002, "ward", "unknown"),
    ]
    tables["concept_relationship"].append(maps_to(2001, 9203))
    first = tables["visit_occurrence"][0]
    tables["visit_occurrence"] = [
        first | {"visit_concept_id": number} for number in (581476, 2001, 32037, 262, 2002)
    ]
    tables["visit_occurrence"][2]["visit_end_date"] = None
    tables["visit_occurrence"][2]["visit_end_datetime"] = None
    result = read_tables(tables, tmp_path)
    visits = {event.code for event in result.events if event.code.startswith("Visit")}
    assert visits == {
        *("Visit/OMOP4822458", "Visit/ER", "Visit/ICU", "Visit/ERIP"),
        *("VisitEnd/OMOP4822458", "VisitEnd/ER", "VisitEnd/ERIP"),
    }
    assert result.counts.excluded == {Exclusion.UNMAPPED: 1}


def test_a_unit_without_a_concept_is_as_recorded_and_an_answer_may_be_words(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["measurement"][0] |= {"unit_concept_id": 0, "unit_source_value": "µmol/l"}
    tables["measurement"][1] |= {"unit_concept_id": None, "unit_source_value": None}
    tables["observation"][0] |= {"value_as_concept_id": 0, "value_as_string": "former smoker"}
    result = read_tables(tables, tmp_path)
    assert {event.unit for event in result.of("LOINC/2160-0")} == {"µmol/l", None}
    assert result.of("LOINC/72166-2")[0].text_value == "former smoker"


@pytest.mark.parametrize(("gender", "sex"), [(8521, "other"), (0, "unknown"), (None, "unknown")])
def test_a_sex_that_is_neither_is_other_or_unknown(
    gender: int | None, sex: str, tmp_path: Path
) -> None:
    tables = six_patients_tables()
    tables["person"][0]["gender_concept_id"] = gender
    (event,) = (e for e in read_tables(tables, tmp_path).of("LOINC/46098-0") if e[0] == "101")
    assert event.text_value == sex


def test_narrower_codes_come_from_the_ancestor_table(tmp_path: Path) -> None:
    tables = six_patients_tables()
    source = OmopFolder(write_parquet(tmp_path / "with", tables))
    asked = frozenset({"SNOMED/22298006", "SNOMED/59621000", "LOINC/none"})
    assert source.descendants(asked) == {
        "SNOMED/22298006": {"SNOMED/22298006", "SNOMED/57054005"},
        "SNOMED/59621000": {"SNOMED/59621000"},
        "LOINC/none": {"LOINC/none"},
    }
    del tables["concept_ancestor"]
    source = OmopFolder(write_parquet(tmp_path / "without", tables))
    assert source.descendants(asked) == {code: {code} for code in asked}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("0001-01-01", Exclusion.TIME_IMPOSSIBLE),
        ("1753-01-01", Exclusion.TIME_IMPOSSIBLE),
        ("2999-01-01", Exclusion.TIME_IMPOSSIBLE),
        ("infinity", Exclusion.TIME_UNREADABLE),
        ("2020-02-30", Exclusion.TIME_UNREADABLE),
        ("02/03/2020", Exclusion.TIME_UNREADABLE),
        (MARKER, Exclusion.TIME_UNREADABLE),
        (None, Exclusion.TIME_UNREADABLE),
    ],
)
def test_a_time_that_cannot_be_is_counted(
    cell: str | None, reason: Exclusion, tmp_path: Path
) -> None:
    tables = six_patients_tables()
    tables["condition_occurrence"].append(
        condition(CONCEPTS["SNOMED/57054005"]) | {"condition_start_date": cell}
    )
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.excluded == {reason: 1}


@pytest.mark.parametrize("cell", ["20200202", "2020-02-02 00:00:00.0000000", "2020-02-02T00:00"])
def test_a_time_in_an_iso_form_is_read(cell: str, tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["condition_occurrence"].append(
        condition(CONCEPTS["SNOMED/57054005"]) | {"condition_start_date": cell}
    )
    (event,) = read_tables(tables, tmp_path).of("SNOMED/57054005")
    assert event.time == datetime.fromisoformat("2020-02-02")


def test_a_time_with_an_offset_needs_the_zone_of_the_site(tmp_path: Path) -> None:
    tables = six_patients_tables()
    row = condition(CONCEPTS["SNOMED/57054005"])
    row["condition_start_date"] = None
    row["condition_start_datetime"] = "2020-07-02 10:00:00+00"
    tables["condition_occurrence"].append(row)
    folder = write_csv(tmp_path / "cdm", tables)
    without = read(folder, tmp_path / "scratch")
    assert without.counts.excluded == {Exclusion.TIME_UNREADABLE: 1}
    within = read(folder, tmp_path / "scratch", time_zone=ZoneInfo("Europe/London"))
    (event,) = within.of("SNOMED/57054005")
    assert event.time == datetime.fromisoformat("2020-07-02T11:00")


def test_a_parquet_time_with_a_zone_needs_the_zone_of_the_site(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "cdm", six_patients_tables())
    table = parquet.read_table(folder / "death.parquet")
    index = table.column_names.index("death_datetime")
    zoned = table["death_datetime"].cast(arrow.timestamp("us", tz="UTC"))
    parquet.write_table(table.set_column(index, "death_datetime", zoned), folder / "death.parquet")
    assert "death_datetime" in str(refused(folder, tmp_path / "scratch"))
    within = read(folder, tmp_path / "scratch", time_zone=ZoneInfo("Europe/London"))
    assert within.events == expected()


def test_both_hours_of_an_autumn_night_keep_the_face_of_the_clock(tmp_path: Path) -> None:
    tables = six_patients_tables()
    for cell in ("2021-10-31 00:30:00+00:00", "2021-10-31 01:30:00+00:00"):
        tables["condition_occurrence"].append(
            condition(CONCEPTS["SNOMED/59621000"]) | {"condition_start_datetime": cell}
        )
    folder = write_csv(tmp_path / "cdm", tables)
    found = read(folder, tmp_path / "scratch", time_zone=ZoneInfo("Europe/London"))
    # Both are half past one in London: summer time, then an hour later winter time.
    at = datetime.fromisoformat("2021-10-31T01:30:00")
    same = [event for event in found.of("SNOMED/59621000") if event.subject_id == "105"]
    assert [event.time for event in same] == [at]
    assert found.counts.excluded == {Exclusion.DUPLICATE: 1}


def test_a_circle_of_ancestors_ends(tmp_path: Path) -> None:
    tables = six_patients_tables()
    a, b = CONCEPTS["SNOMED/22298006"], CONCEPTS["SNOMED/59621000"]
    tables["concept_ancestor"] = [
        {"ancestor_concept_id": above, "descendant_concept_id": below}
        for above, below in ((a, b), (b, a), (a, 999), (999, b), (a, a))
    ]
    found = OmopFolder(write_csv(tmp_path, tables)).descendants(frozenset({"SNOMED/22298006"}))
    assert found == {"SNOMED/22298006": {"SNOMED/22298006", "SNOMED/59621000"}}


@pytest.mark.parametrize("name", ["measurement", "concept_relationship", "concept_ancestor"])
def test_a_table_that_is_absent_has_no_records(name: str, tmp_path: Path) -> None:
    tables = six_patients_tables()
    del tables[name]
    found = read_tables(tables, tmp_path)
    assert found.counts.excluded == {}
    assert found.of("SNOMED/22298006")
    assert bool(found.of("LOINC/2160-0")) == (name != "measurement")


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "nan", "1e309", "1,5", "1_000", MARKER])
def test_a_number_that_is_none_leaves_the_event_without_it(cell: str, tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["measurement"][2]["value_as_number"] = cell
    result = read_tables(tables, tmp_path)
    (event,) = result.of("LOINC/2823-3")
    assert event.numeric_value is None
    assert result.counts.excluded == {Exclusion.VALUE_UNREADABLE: 1}


def test_the_largest_numbers_are_numbers(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["measurement"][2]["value_as_number"] = "1e308"
    (event,) = read_tables(tables, tmp_path).of("LOINC/2823-3")
    assert event.numeric_value == 1e308


@pytest.mark.parametrize("person_id", [999, None, MARKER, "101.5"])
def test_a_record_of_nobody_is_counted(person_id: int | str | None, tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["drug_exposure"].append(tables["drug_exposure"][0] | {"person_id": person_id})
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.excluded == {Exclusion.NO_SUBJECT: 1}


def test_the_same_event_a_second_time_is_counted(tmp_path: Path) -> None:
    tables = six_patients_tables()
    tables["measurement"].append(tables["measurement"][0])
    result = read_tables(tables, tmp_path)
    assert result.events == expected()
    assert result.counts.excluded == {Exclusion.DUPLICATE: 1}


def test_swapped_columns_are_counted_and_no_cell_is_in_the_counts(tmp_path: Path) -> None:
    tables = six_patients_tables()
    for row in tables["condition_occurrence"]:
        row["condition_source_value"], row["condition_source_concept_id"] = 0, MARKER
        row["condition_concept_id"], row["condition_start_date"] = (
            row["condition_start_date"],
            row["condition_concept_id"],
        )
    result = read_tables(tables, tmp_path)
    assert result.counts.excluded == {Exclusion.TIME_UNREADABLE: 2}
    assert MARKER not in repr(result.counts)
