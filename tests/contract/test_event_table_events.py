"""A vendor's tables become the event table: the six patients, each rule of mapping, wrong files."""

from __future__ import annotations

import datetime
import os
import tomllib
from pathlib import Path
from typing import Any

import pandas
import pyarrow as arrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from site_client.sources.event_table_mapping import EventTablesMapping
from site_client.sources.event_tables import OTHER_CODES, EventTables
from site_client.sources.events import BIRTH, SEX, Exclusion
from site_client.sources.local_database import open_local
from tests.lib.damaged_files import MARKER, mutate_and_read, read, refusal
from tests.lib.fuzz_cases import FUZZ_CASES
from tests.lib.six_patients import Event, events_in, expected
from tests.lib.six_patients_vendor import (
    ISO,
    LABS,
    OTHERS,
    SUBJECTS,
    six,
    source,
    write,
)

DEMO = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "eicu_demo_labs"


def events(of: EventTables, scratch: Path) -> list[Event]:
    with open_local(scratch=scratch) as connection:
        of.write_events(connection, "events", scratch=scratch)
        return events_in(connection, "events")


PATIENT = {
    "patient": "p1",
    "stay": "s1",
    "admitted": "2020-01-01 12:00:00",
    "born": "1950-01-01",
    "sex": "F",
    "died": "",
}
PLAIN = {**SUBJECTS, "birth": None, "sex": None, "death": None}
LAB = {"stay": "s1", "offset": "60", "test": "1-8", "result": "1.5", "unit": "g/L"}


def labs(folder: Path, *rows: dict[str, Any], entry: Any = None, **declared: Any) -> EventTables:
    write(folder / "patients.csv", [PATIENT])
    write(folder / "labs.csv.gz", [{**LAB, **row} for row in rows])
    return source(folder, {**LABS, **(entry or {})}, **{"subjects": PLAIN, **declared})


def test_the_six_patients_are_the_same_events(tmp_path: Path) -> None:
    of = six(tmp_path)
    assert events(of, tmp_path) == expected()
    counts = read(of, tmp_path)
    assert counts.excluded == {}
    assert counts.records["patients.csv"] == 6


def test_the_six_patients_are_the_same_events_from_parquet(tmp_path: Path) -> None:
    six(tmp_path)
    entries = []
    for entry in (LABS, OTHERS):
        path = tmp_path / entry["file"]["path"]
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
        frame.to_parquet(tmp_path / f"{path.name}.parquet")
        file = {"path": f"{path.name}.parquet", "format": "parquet"}
        entries.append({**entry, "file": file})
    assert events(source(tmp_path, *entries), tmp_path) == expected()


def test_a_wrong_cell_is_counted_and_not_an_error(tmp_path: Path) -> None:
    of = labs(
        tmp_path,
        *({"result": text} for text in ("<5", "1e308", "1e400", "inf", "nan", "1_0", "", " 2 ")),
        *({"offset": text} for text in ("soon", "", "nan", "1e300", "-99999999999", "1e9")),
        {"stay": "nobody"},
        {"stay": ""},
        {"test": ""},
        {"test": "a b//c"},
    )
    found = events(of, tmp_path)
    values = [e.numeric_value for e in found]
    assert sorted(v for v in values if v is not None) == [2.0, 1e308]
    assert len(found) == 8
    counts = read(of, tmp_path)
    assert counts.excluded == {
        Exclusion.VALUE_UNREADABLE: 5,
        Exclusion.TIME_UNREADABLE: 3,
        Exclusion.TIME_IMPOSSIBLE: 3,
        Exclusion.NO_SUBJECT: 2,
        Exclusion.NO_CODE: 1,
        Exclusion.UNMAPPED: 1,
    }
    assert counts.records == {"patients.csv": 1, "labs.csv.gz": 18}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0001-01-01 00:00:00", Exclusion.TIME_IMPOSSIBLE),
        ("9999-12-31 00:00:00", Exclusion.TIME_IMPOSSIBLE),
        ("2021-02-30 00:00:00", Exclusion.TIME_UNREADABLE),
        ("2021-02-03T00:00:00Z", Exclusion.TIME_UNREADABLE),
        ("", Exclusion.TIME_UNREADABLE),
    ],
)
def test_a_time_that_cannot_be_is_counted(tmp_path: Path, text: str, why: Exclusion) -> None:
    entry = {"time": {"column": "offset", "formats": ISO}}
    of = labs(tmp_path, {"offset": text}, {"offset": "2020-01-01 00:00:00"}, entry=entry)
    assert len(events(of, tmp_path)) == 1
    assert read(of, tmp_path).excluded == {why: 1}


@pytest.mark.parametrize(
    ("unit", "hours"), [("seconds", 60 / 3600), ("minutes", 1), ("hours", 60), ("days", 1440)]
)
def test_a_distance_counts_from_the_anchor(tmp_path: Path, unit: str, hours: float) -> None:
    of = labs(tmp_path, {}, entry={"time": {"column": "offset", "since_anchor": unit}})
    noon = datetime.datetime(2020, 1, 1, 12)  # noqa: DTZ001
    assert [e.time for e in events(of, tmp_path)] == [noon + datetime.timedelta(hours=hours)]


def test_an_unmapped_code_is_counted_and_a_rare_one_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "patients.csv", [{**PATIENT, "patient": i, "stay": i} for i in range(6)])
    rows = [{**LAB, "stay": i, "test": "own"} for i in range(6)]
    write(tmp_path / "labs.csv.gz", [*rows, {**LAB, "stay": 0, "test": MARKER}])
    of = source(tmp_path, {**LABS, "code": {"column": "test"}}, subjects=PLAIN)
    assert events(of, tmp_path) == []
    assert read(of, tmp_path).unmapped == {"own": 6, OTHER_CODES: 1}


def test_a_code_twice_in_a_code_map_file_is_two_events(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("code,standard_code\n1-8,L/1\n1-8,L/2\n")
    of = labs(tmp_path, {}, entry={"code": {"column": "test", "map_files": ["map.csv"]}})
    assert [e.code for e in events(of, tmp_path)] == ["L/1", "L/2"]


def test_a_map_whose_targets_are_mapped_further_is_refused(tmp_path: Path) -> None:
    code = {"column": "test", "values": {"A/1": "B/1", "B/1": "A/1"}}
    refusal(labs(tmp_path, {}, entry={"code": code}), tmp_path)


@pytest.mark.parametrize("code", ["creatinine", "LOINC//1-8", SEX])
def test_a_constant_that_is_no_standard_code_is_refused(tmp_path: Path, code: str) -> None:
    refusal(labs(tmp_path, {}, entry={"code": code}), tmp_path)


def test_a_row_is_an_event_only_with_the_columns_it_needs(tmp_path: Path) -> None:
    of = labs(tmp_path, {"result": ""}, {}, entry={"code": "L/1", "needs": ["result"]})
    assert len(events(of, tmp_path)) == 1
    assert read(of, tmp_path).excluded == {}


def test_duplicates_stay_by_default_and_are_counted_when_dropped(tmp_path: Path) -> None:
    assert len(events(labs(tmp_path, {}, {}, {}), tmp_path)) == 3
    dropped = labs(tmp_path, {}, {}, {}, drop_duplicates=True)
    assert len(events(dropped, tmp_path)) == 1
    assert read(dropped, tmp_path).excluded == {Exclusion.DUPLICATE: 2}


def test_a_sex_that_the_map_does_not_name_is_counted_by_its_column(tmp_path: Path) -> None:
    rows = [{**PATIENT, "patient": i, "stay": i, "sex": MARKER} for i in range(6)]
    write(tmp_path / "patients.csv", rows)
    of = source(tmp_path, subjects={**PLAIN, "sex": SUBJECTS["sex"]})
    counts = read(of, tmp_path)
    assert counts.excluded == {Exclusion.UNMAPPED: 6}
    assert counts.unmapped == {"sex": 6}


def test_an_age_puts_birth_before_the_first_anchor(tmp_path: Path) -> None:
    rows = [
        {**PATIENT, "stay": "s1", "born": "> 89"},
        {**PATIENT, "stay": "s2", "born": "91", "admitted": "2021-01-01 12:00:00"},
        {**PATIENT, "patient": "p2", "stay": "s3", "born": "old"},
    ]
    write(tmp_path / "patients.csv", rows)
    of = source(tmp_path, subjects={**PLAIN, "age": {"column": "born", "values": {"> 89": 90}}})
    assert events(of, tmp_path) == [Event("p1", datetime.datetime(1930, 1, 1), BIRTH)]  # noqa: DTZ001
    assert read(of, tmp_path).excluded == {Exclusion.TIME_UNREADABLE: 1}


def _dated(**more: Any) -> dict[str, Any]:
    return {**PLAIN, "anchor": {"date": datetime.date(2000, 1, 1), **more}}


@pytest.mark.parametrize("age", ["-3", "151", "1e308", "young"])
def test_an_age_that_cannot_be_is_a_counted_birth(tmp_path: Path, age: str) -> None:
    write(tmp_path / "patients.csv", [{**PATIENT, "born": age}])
    of = source(tmp_path, subjects={**PLAIN, "age": {"column": "born"}})
    assert [event for event in events(of, tmp_path) if event.code == BIRTH] == []
    assert read(of, tmp_path).excluded == {Exclusion.TIME_UNREADABLE: 1}


def test_stays_of_one_patient_on_a_declared_date_are_put_in_turn(tmp_path: Path) -> None:
    stays = [{**PATIENT, "stay": "s2", "died": "1"}, {**PATIENT, "stay": "s1", "died": "2"}]
    write(tmp_path / "patients.csv", stays)
    write(tmp_path / "labs.csv.gz", [{**LAB, "stay": "s1"}, {**LAB, "stay": "s2"}])
    of = source(tmp_path, LABS, subjects=_dated(stay_order="died", stay_days=10))
    assert {e.time for e in events(of, tmp_path)} == {
        datetime.datetime(2000, 1, 1, 1),  # noqa: DTZ001
        datetime.datetime(2000, 1, 11, 1),  # noqa: DTZ001
    }
    refusal(source(tmp_path, LABS, subjects=_dated()), tmp_path, hidden=("p1",))


def test_a_key_of_two_patients_is_refused(tmp_path: Path) -> None:
    rows = [{**PATIENT, "stay": MARKER}, {**PATIENT, "patient": "p2", "stay": MARKER}]
    write(tmp_path / "patients.csv", rows)
    assert "'stay'" in str(refusal(source(tmp_path, subjects=PLAIN), tmp_path))


def test_hostile_names_and_cells_are_only_texts(tmp_path: Path) -> None:
    name = "x'\"; DROP TABLE events; --"
    frame = pandas.DataFrame({"stay": ["s1"], name: ["c'); --"], "t": ["1"]})
    frame.to_parquet(tmp_path / "a[1]*'.parquet")
    frame.to_csv(tmp_path / "a[1]*'.csv", index=False)
    write(tmp_path / "patients.csv", [PATIENT])
    for kind in ("csv", "parquet"):
        entry = {
            "file": {"path": f"a[1]*'.{kind}", "format": kind},
            "subject": "stay",
            "code": {"column": name, "values": {"c'); --": "L/1'"}},
            "unit": "'; --",
            "text": {"column": name, "values": {"c'); --": "it's"}},
        }
        of = source(tmp_path, entry, subjects=PLAIN, missing_values=["'"])
        assert events(of, tmp_path) == [Event("p1", None, "L/1'", None, "'; --", "it's")]


def test_latin_1_is_read_when_declared_and_refused_when_not(tmp_path: Path) -> None:
    write(tmp_path / "patients.csv", [PATIENT])
    data = f"stay,offset,test,result,unit\ns1,0,1-8,1,µg {MARKER}\n".encode("latin-1")
    (tmp_path / "labs.csv").write_bytes(data)
    entry = {**LABS, "file": {"path": "labs.csv"}}
    assert "labs.csv" in str(refusal(source(tmp_path, entry, subjects=PLAIN), tmp_path))
    entry = {**LABS, "file": {"path": "labs.csv", "encoding": "latin-1"}}
    found = events(source(tmp_path, entry, subjects=PLAIN), tmp_path)
    assert [e.unit for e in found] == [f"µg {MARKER}"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"stay,offset,test,result\n",
        b"stay,offset,test,result,unit,unit\n",
        b"stay,offset,test,result,unit\ns1,0,%b\n",
        b"stay,offset,test,result,unit\ns1,0,1-8,1,g,%b\n",
        b's1,"%b\n',
        b'stay,offset,test,result,unit\ns1,0,1-8,1,"%b\n',
        b"stay,offset,test,result,unit\ns1,0,1-8,1,%b" + b"x" * (3 << 20) + b"\n",
        b"\xff\xfe%b",
    ],
)
def test_a_broken_csv_file_is_refused(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "patients.csv", [PATIENT])
    (tmp_path / "labs.csv").write_bytes(data.replace(b"%b", MARKER.encode()))
    entry = {**LABS, "file": {"path": "labs.csv"}}
    assert "labs.csv" in str(refusal(source(tmp_path, entry, subjects=PLAIN), tmp_path))


@pytest.mark.parametrize("cut", [1, 8, 9, 40])
def test_a_cut_gzip_file_is_refused(tmp_path: Path, cut: int) -> None:
    of = labs(tmp_path, *({"result": MARKER} for _ in range(50)))
    path = tmp_path / "labs.csv.gz"
    path.write_bytes(path.read_bytes()[:-cut])
    assert "labs.csv.gz" in str(refusal(of, tmp_path))


def test_a_gzip_file_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    of = labs(tmp_path, {})
    data = bytearray((tmp_path / "labs.csv.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "labs.csv.gz").write_bytes(data)
    assert "labs.csv.gz" in str(refusal(of, tmp_path))


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "patients.csv", [PATIENT])
    path = tmp_path / "labs.parquet"
    parquet.write_table(arrow.table({key: [MARKER] * 9 for key in LAB}), path)
    entry = {**LABS, "file": {"path": path.name, "format": "parquet"}}
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        assert path.name in str(refusal(source(tmp_path, entry, subjects=PLAIN), tmp_path))


@pytest.mark.parametrize("place", ["subject", "value", "code", "time", "needs"])
def test_a_missing_column_is_refused_by_name(tmp_path: Path, place: str) -> None:
    wrong: dict[str, Any] = {
        "code": {"column": "no such"},
        "time": {"column": "no such", "since_anchor": "hours"},
        "needs": ["no such"],
    }
    error = refusal(labs(tmp_path, {}, entry={place: wrong.get(place, "no such")}), tmp_path)
    assert "labs.csv.gz: column 'no such'" in str(error)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    refusal(source(tmp_path), tmp_path)
    of = labs(tmp_path, {}, entry={"file": {"path": "none.csv"}})
    assert "none.csv" in str(refusal(of, tmp_path))
    with pytest.raises(Exception, match=r"none\.csv"):
        of.fingerprint()


def test_swapped_columns_are_counted(tmp_path: Path) -> None:
    rows = [{"stay": MARKER, "test": "s1"}, {"result": MARKER, "offset": MARKER}]
    counts = read(labs(tmp_path, *rows), tmp_path)
    assert counts.excluded == {Exclusion.NO_SUBJECT: 1, Exclusion.TIME_UNREADABLE: 1}
    assert MARKER not in str(counts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": {"column": "offset"}},
        {"time": {"column": "offset", "formats": ISO, "since_anchor": "hours"}},
        {"time": {"column": "offset", "formats": ["%Y-%m-%d %z"]}},
        {"time": {"column": "offset", "formats": ["%-Q"]}},
        {"time": {"column": "offset", "formats": ["2020"]}},
        {"file": {"path": "x", "delimiter": ",,"}},
    ],
)
def test_a_wrong_mapping_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source(tmp_path, {**LABS, **wrong})


def test_each_code_stands_for_itself(tmp_path: Path) -> None:
    assert source(tmp_path).descendants(frozenset({"L/1"})) == {"L/1": {"L/1"}}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_read_when_declared(tmp_path: Path, delimiter: str) -> None:
    six(tmp_path)
    path = tmp_path / "patients.csv"
    path.write_text(path.read_text().replace(",", delimiter))
    file = {"path": "patients.csv", "delimiter": delimiter}
    of = source(tmp_path, LABS, OTHERS, subjects={**SUBJECTS, "file": file})
    assert events(of, tmp_path) == expected()


def test_changed_bytes_end_in_events_or_a_refusal(tmp_path: Path) -> None:
    _fuzz(tmp_path, times=200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_changed_files_end_in_events_or_a_refusal(tmp_path: Path) -> None:
    _fuzz(tmp_path, times=FUZZ_CASES)


def _fuzz(folder: Path, *, times: int) -> None:
    of = six(folder)
    frame = pandas.read_csv(folder / "patients.csv", dtype=str)
    frame.to_parquet(folder / "patients.parquet")
    file = {"path": "patients.parquet", "format": "parquet"}
    of = source(folder, LABS, OTHERS, subjects={**SUBJECTS, "file": file})
    names = ("patients.parquet", "labs.csv.gz", "others.csv", "map.csv")
    files = [folder / name for name in names]
    assert 0 < mutate_and_read(lambda: of, files, folder, times=times, seed=times) < times


def test_the_example_in_the_documents_is_a_mapping() -> None:
    text = (Path(__file__).parents[2] / "docs/event-tables-source.md").read_text()
    example = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    assert EventTablesMapping.model_validate(example["source"]).events


@pytest.mark.skipif(not DEMO.is_dir(), reason="the eICU demonstration data are not there")
def test_counts_of_the_demonstration_data_agree_with_a_second_reader(tmp_path: Path) -> None:
    labs_ = pandas.read_csv(DEMO / "lab.csv.gz", dtype=str, keep_default_na=False)
    names = sorted(set(labs_.labname))
    write(
        tmp_path / "map.csv",
        [{"code": name, "standard_code": f"EICU/{i}"} for i, name in enumerate(names[:-5])],
    )
    folder = DEMO.resolve()
    subjects = {
        "file": {"path": str(folder / "patient.csv.gz")},
        "subject": "uniquepid",
        "key": "patientunitstayid",
        "age": {"column": "age", "values": {"> 89": 90}},
        "sex": {"column": "gender", "values": {"Female": "female", "Male": "male"}},
        "anchor": {"date": datetime.date(2000, 1, 1), "stay_order": "unitvisitnumber"},
    }
    entry = {
        "file": {"path": str(folder / "lab.csv.gz")},
        "subject": "patientunitstayid",
        "time": {"column": "labresultoffset", "since_anchor": "minutes"},
        "code": {"column": "labname", "map_files": ["map.csv"]},
        "value": "labresult",
        "unit": {"column": "labmeasurenamesystem"},
    }
    of = source(tmp_path, entry, subjects=subjects)
    with open_local(scratch=tmp_path) as connection:
        counts = of.write_events(connection, "events", scratch=tmp_path)
        query = "SELECT code, count(*), count(numeric_value), sum(numeric_value) FROM events"
        rows = connection.execute(f"{query} WHERE code LIKE 'EICU/%' GROUP BY code").fetchall()
        people = connection.execute("SELECT count(DISTINCT subject_id) FROM events").fetchall()
    labs_["value"] = pandas.to_numeric(labs_.labresult, errors="coerce")
    want = labs_.groupby("labname").value.agg(["size", "count", "sum"])
    assert len(rows) == len(names) - 5
    for code, size, values, total in rows:
        row = want.loc[names[int(code.removeprefix("EICU/"))]]
        assert (size, values) == (row["size"], row["count"])
        assert total == pytest.approx(row["sum"])
    left_out = int(want.loc[names[-5:], "size"].sum())
    assert counts.excluded[Exclusion.UNMAPPED] - left_out in range(10)  # patients without a sex
    patients = pandas.read_csv(DEMO / "patient.csv.gz", dtype=str)
    assert people == [(patients.uniquepid.nunique(),)]
