"""MEDS data become the event table: the six patients, each rule of mapping, wrong files."""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as arrow
import pytest
from meds.schema import CodeMetadataSchema, DataSchema
from pyarrow import parquet

from site_client.sources.events import BIRTH, DEATH, SEX, Exclusion
from site_client.sources.local_database import open_local
from site_client.sources.meds import OTHER_CODES, UNMAPPED_LISTED_MAX, MedsFolder
from site_client.sources.meds_codes import MedsCodes
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.damaged_files import MARKER, mutate_and_read, read, refusal
from tests.lib.fuzz_cases import FUZZ_CASES
from tests.lib.six_patients import Event, events_in, expected
from tests.lib.six_patients_meds import (
    SIX,
    STANDARD,
    source,
    write_codes,
    write_shard,
    write_six,
)

DEMO = (
    Path(os.environ.get("COHORTIUM_DATA", "../shared/data"))
    / "meds_mimic4_demo/mimic_iv_demo_meds_events.parquet"
)


def events(of: MedsFolder, scratch: Path) -> list[Event]:
    with open_local(scratch=scratch) as connection:
        of.write_events(connection, "events", scratch=scratch)
        return events_in(connection, "events")


def one(folder: Path, *rows: dict[str, Any], **declared: Any) -> MedsFolder:
    write_shard(folder / "meds/data/0.parquet", [{"subject_id": 1, **row} for row in rows])
    return source(folder, **declared)


NOON = datetime.datetime(2020, 1, 1, 12)  # noqa: DTZ001


def test_the_six_patients_are_the_same_events(tmp_path: Path) -> None:
    write_six(tmp_path / "meds")
    six = source(tmp_path, **SIX)
    assert events(six, tmp_path) == expected()
    assert read(six, tmp_path).excluded == {}


def test_the_written_shards_are_by_the_standard(tmp_path: Path) -> None:
    folder = write_six(tmp_path / "meds")
    for path in folder.glob("data/**/*.parquet"):
        DataSchema.validate(parquet.read_table(path))
    CodeMetadataSchema.validate(parquet.read_table(folder / "metadata/codes.parquet"))


def test_events_are_a_view_unless_duplicates_are_dropped(tmp_path: Path) -> None:
    write_six(tmp_path / "meds")
    for drops, kind in ((False, "VIEW"), (True, "BASE TABLE")):
        with open_local(scratch=tmp_path) as connection:
            source(tmp_path, **SIX, drop_duplicates=drops).write_events(
                connection, "events", scratch=tmp_path
            )
            query = "SELECT table_type FROM information_schema.tables WHERE table_name = 'events'"
            assert connection.execute(query).fetchall() == [(kind,)]
            assert events_in(connection, "events") == expected()


def test_a_number_of_two_decimals_is_what_was_recorded_and_any_other_one_has_the_same_32_bits(
    tmp_path: Path,
) -> None:
    def read_back(numbers: Any) -> list[float]:
        rows = [{"time": NOON, "code": "LOINC//1-8", "numeric_value": item} for item in numbers]
        return [event.numeric_value or 0.0 for event in events(one(tmp_path, *rows), tmp_path)]

    chance = np.random.default_rng(5)
    recorded = np.append(chance.integers(-9_999_999, 9_999_999, 20_000) / 100, [0.0, 99999.99])
    assert sorted(read_back(np.float32(recorded))) == sorted(recorded)
    bits = chance.integers(0, 1 << 32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    beside = np.nextafter(np.float32(recorded), np.float32(np.inf))
    others = np.concatenate([bits[np.isfinite(bits)], beside])
    np.testing.assert_array_equal(np.sort(np.float32(read_back(others))), np.sort(others))


def test_events_of_codes_that_nobody_asks_for_may_be_left_out_but_are_counted(
    tmp_path: Path,
) -> None:
    write_six(tmp_path / "meds")
    six = source(tmp_path, **SIX)
    with open_local(scratch=tmp_path) as connection:
        asked = frozenset({"LOINC/2160-0", DEATH})
        counts = six.write_events(connection, "events", scratch=tmp_path, codes=asked)
        found = events_in(connection, "events")
    assert found == [event for event in expected() if event.code in asked]
    assert counts == read(six, tmp_path)


def test_duplicates_stay_by_default_and_are_counted_when_dropped(tmp_path: Path) -> None:
    row = {"time": NOON, "code": "LOINC//1-8", "numeric_value": 1.5}
    kept = one(tmp_path, row, row, row)
    assert len(events(kept, tmp_path)) == 3
    dropped = source(tmp_path, drop_duplicates=True)
    assert len(events(dropped, tmp_path)) == 1
    assert read(dropped, tmp_path).excluded == {Exclusion.DUPLICATE: 2}


def test_a_code_without_vocabulary_is_counted_and_never_guessed(tmp_path: Path) -> None:
    codes = ["Weight (Lbs)", "LAB//1//UNK", "LAB//1//UNK", "//x", "X//", "LOINC//1-8", "LOINC/2-6"]
    of = one(tmp_path, *({"time": NOON, "code": code} for code in codes))
    assert [item.code for item in events(of, tmp_path)] == ["LOINC/1-8", "LOINC/2-6"]
    counts = read(of, tmp_path)
    assert counts.records == {"data": 7}
    assert counts.excluded == {Exclusion.UNMAPPED: 5}
    assert counts.unmapped == {"LAB//1//UNK": 2, "//x": 1, "Weight (Lbs)": 1, "X//": 1}


def test_only_the_most_frequent_unmapped_codes_are_listed(tmp_path: Path) -> None:
    codes = [f"own {i}" for i in range(UNMAPPED_LISTED_MAX + 7)]
    of = one(tmp_path, *({"time": NOON, "code": code} for code in codes))
    unmapped = read(of, tmp_path).unmapped
    assert len(unmapped) == UNMAPPED_LISTED_MAX + 1
    assert unmapped[OTHER_CODES] == 7


def test_a_unit_in_the_code_is_the_unit_where_the_record_has_none(tmp_path: Path) -> None:
    of = one(
        tmp_path,
        {"time": NOON, "code": "LAB//7//mg/dL"},
        {"time": NOON, "code": "LAB//7//mg/dL", "unit": "g/L"},
        {"time": NOON, "code": "LAB//7//UNK"},
        {"time": NOON, "code": "LAB//7//a//b"},
        unit_column="unit",
        unit_in_code=["LAB//<code>//<unit>"],
        unit_missing=["UNK"],
    )
    assert [item.unit for item in events(of, tmp_path)] == [None, "g/L", "mg/dL"]
    assert {item.code for item in events(of, tmp_path)} == {"LAB/7"}
    assert read(of, tmp_path).excluded == {Exclusion.UNMAPPED: 1}


def test_a_declared_code_goes_before_parents_and_form(tmp_path: Path) -> None:
    write_codes(tmp_path / "meds", {"LAB//7//mg/dL": ["LOINC/9-9", "LOINC/8-8", "SNOMED/1"]})
    row = {"time": NOON, "code": "LAB//7//mg/dL"}
    common = {"unit_in_code": ["LAB//<code>//<unit>"], "map_to_parents": ["LOINC"]}
    of = one(tmp_path, row, **common)
    assert [item.code for item in events(of, tmp_path)] == ["LOINC/8-8", "LOINC/9-9"]
    for key in ("LAB//7//mg/dL", "LAB//7"):
        declared = source(tmp_path, **common, code_map={key: "LOINC/2-6"})
        assert [(item.code, item.unit) for item in events(declared, tmp_path)] == [
            ("LOINC/2-6", "mg/dL")
        ]


def test_a_code_twice_in_a_code_map_file_is_two_events(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("code,standard_code\nLAB//7,LOINC/1-8\nLAB//7,LOINC/2-6\n")
    of = one(tmp_path, {"time": NOON, "code": "LAB//7"}, code_maps=["map.csv"])
    assert [item.code for item in events(of, tmp_path)] == ["LOINC/1-8", "LOINC/2-6"]


@pytest.mark.parametrize(
    "text",
    [
        "A//1,LOINC/1-8\n",
        "code,standard_code\nA//1\n",
        "code,standard_code\nA//1,LOINC\n",
        "code,standard_code\nA//1,LOINC/1-8\nA//1,LOINC/1-8\n",
        f"code,standard_code\n{MARKER},A/1\nA/1,LOINC/1-8\n",
        "code,standard_code\nA/1,B/1\nB/1,A/1\n",
        "code,standard_code\nA/1,A/1\n",
        'code,standard_code\nA//1,"LOINC/1-8\n',
        "",
        "code,standard_code\nD//1,LOINC/1-8\n",
        f"code,standard_code\nA//1,{SEX}\n",
    ],
)
def test_a_wrong_code_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    declared = {"code_map": {"D//1": "LOINC/3-4"}, "code_maps": ["map.csv"]}
    of = one(tmp_path, {"time": NOON, "code": "A//1"}, **declared)
    assert "map.csv" in str(refusal(of, tmp_path))


def test_a_sites_own_code_of_sex_needs_a_declaration(tmp_path: Path) -> None:
    of = one(tmp_path, {"time": NOON, "code": "SEX//w"}, sexes={"SEX//w": "female"})
    assert events(of, tmp_path) == [Event("1", None, SEX, text_value="female")]


def test_a_code_map_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_bytes(b"code,standard_code\nA//\xff" + MARKER.encode() + b",L/1\n")
    refusal(one(tmp_path, {"time": NOON, "code": "A//1"}, code_maps=["map.csv"]), tmp_path)


def test_impossible_times_and_numbers_are_counted(tmp_path: Path) -> None:
    of = one(
        tmp_path,
        {"time": datetime.datetime(1, 1, 1), "code": "L//1"},  # noqa: DTZ001
        {"time": datetime.datetime(9999, 12, 31), "code": "L//1"},  # noqa: DTZ001
        {"time": NOON, "code": "L//1", "numeric_value": float("inf")},
        {"time": NOON, "code": "L//1", "numeric_value": float("nan")},
        {"time": NOON, "code": "L//1", "numeric_value": 1e38},
        {"time": None, "code": "L//1", "numeric_value": 2.5},
        {"time": datetime.datetime(1, 1, 1), "code": "GENDER//F"},  # noqa: DTZ001
        {"subject_id": None, "time": NOON, "code": "L//1"},
        {"time": NOON, "code": None},
        {"time": NOON, "code": ""},
    )
    found = events(of, tmp_path)
    assert sorted(str(item.numeric_value) for item in found if item.code == "L/1") == [
        "1e+38",
        "2.5",
        "None",
        "None",
    ]
    assert read(of, tmp_path).excluded == {
        Exclusion.NO_SUBJECT: 1,
        Exclusion.NO_CODE: 2,
        Exclusion.TIME_IMPOSSIBLE: 2,
        Exclusion.VALUE_UNREADABLE: 2,
    }


def test_data_with_times_in_the_future_need_a_declared_end(tmp_path: Path) -> None:
    row = {"time": datetime.datetime(2180, 3, 23), "code": "L//1"}  # noqa: DTZ001
    assert events(one(tmp_path, row), tmp_path) == []
    declared = source(tmp_path, data_until=datetime.date(2200, 1, 1))
    assert len(events(declared, tmp_path)) == 1


def test_a_code_stands_for_the_site_codes_below_it(tmp_path: Path) -> None:
    write_codes(
        tmp_path / "meds",
        {"LAB//7": ["LOINC/1-8"], "LAB//8": ["LAB/7", "SNOMED//5"], "ROOT//1": ["ROOT//1"]},
    )
    of = one(tmp_path, {"time": NOON, "code": "LAB//7"})
    below = of.descendants(frozenset({"LOINC/1-8", "SNOMED/5", "ROOT/1", "ICD10/I21"}))
    assert below == {
        "LOINC/1-8": {"LOINC/1-8", "LAB/7", "LAB/8"},
        "SNOMED/5": {"SNOMED/5", "LAB/8"},
        "ROOT/1": {"ROOT/1"},
        "ICD10/I21": {"ICD10/I21"},
    }


def test_a_hostile_column_name_is_only_a_name(tmp_path: Path) -> None:
    name = 'x"; DROP TABLE events; --'
    fields = [("s", arrow.string()), ("t", arrow.date32()), (name, arrow.string())]
    rows = [{"s": "p'1", "t": datetime.date(2020, 1, 1), name: "L//1"}]
    write_shard(tmp_path / "a[1]*'; x.parquet", rows, fields)
    columns = {"subject_id": "s", "time": "t", "code": name}
    of = source(tmp_path, path="a[1]*'; x.parquet", columns=columns)
    assert events(of, tmp_path) == [Event("p'1", NOON.replace(hour=0), "L/1")]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("subject_id", arrow.float64()),
        ("time", arrow.string()),
        ("time", arrow.timestamp("us", tz="UTC")),
        ("code", arrow.int64()),
        ("numeric_value", arrow.string()),
        ("numeric_value", arrow.float64()),
        ("unit", arrow.int32()),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path: Path, column: str, kind: Any) -> None:
    fields = [(name, kind if name == column else own) for name, own in STANDARD]
    write_shard(tmp_path / "meds/data/0.parquet", [], fields)
    error = refusal(source(tmp_path, unit_column="unit"), tmp_path)
    assert column in str(error)
    assert "0.parquet" in str(error)


def test_swapped_columns_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "meds/data/0.parquet", [{"subject_id": 1, "code": MARKER}])
    columns = {"subject_id": "code", "code": "subject_id"}
    assert "'subject_id'" in str(refusal(source(tmp_path, columns=columns), tmp_path))


def test_missing_files_and_columns_are_refused(tmp_path: Path) -> None:
    assert "meds" in str(refusal(source(tmp_path), tmp_path))
    (tmp_path / "meds").mkdir()
    refusal(source(tmp_path), tmp_path)
    of = one(tmp_path, {"time": NOON, "code": "L//1"}, unit_column="no such")
    assert "'no such'" in str(refusal(of, tmp_path))
    refusal(source(tmp_path, map_to_parents=["LOINC"]), tmp_path)
    refusal(source(tmp_path, code_maps=["none.csv"]), tmp_path)


def test_columns_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "meds/data/0.parquet", [], [*STANDARD, ("CODE", arrow.string())])
    refusal(source(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["data/train/0.parquet", "metadata/codes.parquet"])
@pytest.mark.parametrize("kept", [0, 4, 200, -9])
def test_a_cut_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    path = write_six(tmp_path / "meds") / name
    path.write_bytes(path.read_bytes()[:kept])
    assert name in str(refusal(source(tmp_path, **SIX), tmp_path))


@pytest.mark.parametrize("text", ["[]", "{", '{"dataset_name": 5}', MARKER, "[" * 100_000])
def test_a_wrong_description_of_the_data_set_is_refused(tmp_path: Path, text: str) -> None:
    (write_six(tmp_path / "meds") / "metadata/dataset.json").write_text(text)
    assert "dataset.json" in str(refusal(source(tmp_path, **SIX), tmp_path))


def test_a_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    raw = b"LOINC//2160-0 \xe9" + MARKER.encode()
    text = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.py_buffer(_int32(0, len(raw))), arrow.py_buffer(raw)]
    )
    row = {"subject_id": arrow.array([1]), "time": arrow.array([NOON]), "code": text}
    (tmp_path / "meds/data").mkdir(parents=True)
    parquet.write_table(arrow.table(row), tmp_path / "meds/data/0.parquet")
    assert "meds" in str(refusal(source(tmp_path, columns={}), tmp_path))


def _int32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def test_changed_bytes_end_in_events_or_a_refusal(tmp_path: Path) -> None:
    _fuzz(tmp_path, times=200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_changed_files_end_in_events_or_a_refusal(tmp_path: Path) -> None:
    _fuzz(tmp_path, times=FUZZ_CASES)


def _fuzz(folder: Path, *, times: int) -> None:
    six = write_six(folder / "meds")
    (folder / "map.csv").write_text("code,standard_code\nLAB//7,LOINC/1-8\n")
    files = [*sorted(six.rglob("*.parquet")), six / "metadata/dataset.json", folder / "map.csv"]
    make: Callable[[], MedsFolder] = lambda: source(folder, **SIX, code_maps=["map.csv"])  # noqa: E731
    assert 0 < mutate_and_read(make, files, folder, times=times, seed=times) < times


def test_the_example_in_the_documents_is_a_mapping() -> None:
    text = (Path(__file__).parents[2] / "docs/meds-source.md").read_text()
    example = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    assert MedsMapping.model_validate(example["source"]).unit_in_code


@pytest.mark.skipif(not DEMO.is_file(), reason="the MEDS demonstration data are not there")
def test_counts_of_the_demonstration_data_agree_with_a_second_reader(tmp_path: Path) -> None:
    mapping = MedsMapping(
        kind="meds",
        path=str(DEMO.resolve()),
        columns={"numeric_value": "value"},  # type: ignore[arg-type]
        unit_in_code=("LAB//<code>//<unit>",),
        unit_missing=("UNK",),
        data_until=datetime.date(2250, 1, 1),
    )
    of = MedsFolder(mapping, folder=tmp_path)
    frame = pandas.read_parquet(DEMO)
    lab = frame.code.str.extract(r"^LAB//((?:(?!//).)+)//(?:(?!//).)*$")[0]
    facts = frame.code.map({"MEDS_BIRTH": BIRTH, "MEDS_DEATH": DEATH})
    sex = frame.code.where(~frame.code.str.fullmatch("GENDER//[FM]")).notna()
    plain = frame.code.str.extract(r"^([A-Za-z0-9_.+-]{1,40})//?((?:(?!//).)+)$")
    form = (plain[0] + "/" + plain[1]).where(
        ~plain[1].str.match(r"[\s/]").fillna(True).astype(bool)
    )
    want = facts.fillna("LAB/" + lab).fillna(form).where(sex, SEX).value_counts()
    with open_local(scratch=tmp_path) as connection:
        counts = of.write_events(connection, "events", scratch=tmp_path)
        found = connection.execute("SELECT code, count(*) FROM events GROUP BY code").fetchall()
        ((total,),) = connection.execute("SELECT sum(numeric_value) FROM events").fetchall()
    assert dict(found) == want.to_dict()
    assert counts.records == {"data": len(frame)}
    assert sum(dict(found).values()) + sum(counts.excluded.values()) == len(frame)
    kept = facts.fillna(lab).fillna(form).notna()
    assert total == pytest.approx(frame.value[kept].astype("float64").sum(), rel=1e-6)


def test_codes_are_mapped_once_a_code_and_not_once_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    mapped = MedsCodes.mapped

    def ask(self: MedsCodes, site_code: str) -> Any:
        asked.append(site_code)
        return mapped(self, site_code)

    monkeypatch.setattr(MedsCodes, "mapped", ask)
    read(one(tmp_path, *[{"time": NOON, "code": "L//1"}] * 5000), tmp_path)
    assert set(asked) == {"L//1"}
    assert len(asked) <= 2
