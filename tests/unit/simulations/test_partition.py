"""One data set becomes several sites: every patient at one of them, small parts told."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations.data_set import DataSet
from simulations.partition import Partition, by_column, by_label_skew, by_quantity, by_time
from simulations.site_choice import choose_sites
from site_client.sources.table import PatientTable
from tests.lib.event_hospital import SOURCE as MEDS_SOURCE
from tests.lib.event_hospital import admissions_plan, write_meds_hospital
from tests.lib.plans import make_plan

PLAN = make_plan()
SEVERAL = make_plan(privacy__rows_per_patient_max=3, training__sampling_probability=0.1)

SOURCE = """\
[source]
kind = "table"
path = "all.csv"
subject_id = "who"
index_date_column = "day"

[source.label]
column = "ill"
positive = ["1"]
negative = ["0"]

[source.features]
age = {{ column = "age", unit = "a" }}
systolic_bp = {{ column = "bp", unit = "mm[Hg]" }}
sex = {{ column = "sex", values = {{ f = "female", m = "male" }} }}
""".replace("{{", "{").replace("}}", "}")


def data_set(
    folder: Path, patients: int = 400, rows_each: int = 1, hospitals: int = 4, seed: int = 0
) -> DataSet:
    """Write a table of invented patients; each has all rows in one hospital."""
    rng = np.random.default_rng(seed)
    lines = ["who,hospital,day,age,bp,sex,ill"]
    for patient in range(patients):
        for row in range(rows_each):
            ill = int(rng.random() < 0.3)
            day = f"{2015 + patient * 5 // patients}-0{1 + row}-11"
            lines.append(
                f"P{patient:04d},Hôpital {patient % hospitals + 1},{day},"
                f"{rng.integers(20, 90)},{rng.integers(90, 200)},{'fm'[patient % 2]},{ill}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    (folder / "data.toml").write_text(SOURCE)
    return DataSet.read(folder / "data.toml")


def tables(partition: Partition, plan: StudyPlan) -> dict[str, PatientTable]:
    found = {}
    for site in partition:
        assert not hasattr(site.patients, "x")
        found[site.site_id] = site.patients.rows(plan)  # type: ignore[union-attr]
    return found


WAYS: dict[str, Callable[[DataSet, StudyPlan, int], Partition]] = {
    "column": lambda data, plan, seed: by_column(data, plan, "hospital"),
    "label skew": lambda data, plan, seed: by_label_skew(data, plan, sites=3, alpha=20, seed=seed),
    "quantity": lambda data, plan, seed: by_quantity(data, plan, sites=3, exponent=0.5, seed=seed),
    "time": lambda data, plan, seed: by_time(data, plan, sites=3),
}


@pytest.mark.parametrize("way", WAYS)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6))
def test_every_row_is_at_exactly_one_site_with_all_rows_of_its_patient(
    tmp_path: Path, way: str, seed: int
) -> None:
    data = data_set(tmp_path / str(seed), patients=300, rows_each=2, seed=seed)
    partition = WAYS[way](data, SEVERAL, seed)
    found = tables(partition, SEVERAL)
    assert not partition.left_out
    assert sum(table.rows for table in found.values()) == 600
    patients = [who for table in found.values() for who in set(table.subject_ids)]
    assert len(patients) == len(set(patients)) == 300
    whole = data.rows(SEVERAL)
    ages = sorted(whole.numeric["age"].tolist())
    assert sorted(np.concatenate([t.numeric["age"] for t in found.values()]).tolist()) == ages


def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        by_column(data_set(tmp_path), PLAN, "hospitl")
    assert "who, hospital, day, age, bp, sex, ill" in refused.value.expected


def test_a_columns_texts_name_the_sites_and_sizes_are_declared_rounded_down(tmp_path: Path) -> None:
    partition = by_column(data_set(tmp_path, patients=415, hospitals=4), PLAN, "hospital")
    assert [site.site_id for site in partition] == [f"hopital-{number}" for number in (1, 2, 3, 4)]
    assert [site.declared_cohort_size for site in partition] == [100, 100, 100, 100]


def test_texts_that_give_one_name_stay_different_sites(tmp_path: Path) -> None:
    data = data_set(tmp_path)
    text = (tmp_path / "all.csv").read_text()
    for number, name in enumerate(("A B", "a-b", "a b 2", "A_B")):
        text = text.replace(f"Hôpital {number + 1},", f"{name},")
    (tmp_path / "all.csv").write_text(text)
    ids = [site.site_id for site in by_column(data, PLAN, "hospital")]
    assert len(set(ids)) == 4


def test_small_parts_are_left_out_and_told_with_their_names(tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    data = data_set(tmp_path, patients=200)
    lines = [f"P{number:04d},{'tiny' if number < 30 else number % 2}" for number in range(190)]
    file.write_text("subject_id,site\n" + "\n".join(lines) + "\n")
    partition = by_column(data, PLAN, file)
    assert [site.site_id for site in partition] == ["0", "1"]
    unnamed, small = partition.left_out
    assert unnamed.startswith("10 patients for whom the file sites.csv names no site")
    assert "fewer than 50 patients (30 patients in all): tiny" in small


def test_a_division_that_leaves_fewer_than_two_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is refused") as refused:
        by_quantity(data_set(tmp_path, patients=100), PLAN, sites=10, exponent=1.0)
    assert "--patients-min" in refused.value.todo


def test_a_file_that_puts_a_patient_at_two_sites_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    file.write_text("subject_id,site\nP0001,a\nP0001,b\n")
    with pytest.raises(ConfigError, match=r"sites\.csv is refused"):
        by_column(data_set(tmp_path), PLAN, file)


def test_a_large_alpha_makes_sites_alike_and_a_small_one_makes_them_differ(tmp_path: Path) -> None:
    data = data_set(tmp_path, patients=4000)

    def shares(alpha: float) -> list[float]:
        parts = by_label_skew(data, PLAN, sites=4, alpha=alpha, seed=5, patients_min=20)
        return [float(table.label.mean()) for table in tables(parts, PLAN).values()]

    assert np.ptp(shares(1e4)) < 0.06
    assert np.ptp(shares(0.5)) > 0.2


def test_sizes_fall_with_the_rank_to_the_stated_power(tmp_path: Path) -> None:
    data = data_set(tmp_path, patients=3000)
    parts = by_quantity(data, PLAN, sites=3, exponent=1.0)
    sizes = [table.rows for table in tables(parts, PLAN).values()]
    expected = 3000 * np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    np.testing.assert_allclose(sizes, expected, atol=1)


def test_periods_follow_each_other_and_patients_of_one_day_stay_together(tmp_path: Path) -> None:
    found = list(tables(by_time(data_set(tmp_path), PLAN, sites=2), PLAN).values())
    assert len(found) == 2
    first, second = (table.index_time for table in found)
    assert first is not None and second is not None
    assert first.max() < second.min()


def test_time_without_dates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be divided by time"):
        by_time(data_set(tmp_path), PLAN, column="hospital", sites=2)


def test_parts_are_the_same_after_they_were_sent_to_another_process(tmp_path: Path) -> None:
    partition = by_quantity(data_set(tmp_path), PLAN, sites=3, exponent=0)
    sent = pickle.loads(pickle.dumps(partition))
    other = make_plan(features__0__clip=[30, 80])  # asks anew: rows are read again, and cut alike
    for site, copy in zip(partition, sent, strict=True):
        assert site.fingerprint(PLAN) == copy.fingerprint(PLAN)
        assert site.fingerprint(other) == copy.fingerprint(other) != site.fingerprint(PLAN)


def test_the_same_seed_divides_alike_and_another_seed_otherwise(tmp_path: Path) -> None:
    data = data_set(tmp_path)

    def ids(seed: int) -> tuple[str, ...]:
        return tables(by_quantity(data, PLAN, sites=2, exponent=0, seed=seed), PLAN)[
            "site-1"
        ].subject_ids

    assert ids(1) == ids(1) != ids(2)


def test_a_data_set_is_divided_in_one_way_and_invented_patients_in_none(tmp_path: Path) -> None:
    data_set(tmp_path)
    file = tmp_path / "data.toml"
    with pytest.raises(ConfigError, match="cannot be divided"):
        choose_sites(PLAN, data=file)
    with pytest.raises(ConfigError, match="cannot be divided"):
        choose_sites(PLAN, data=file, by="hospital", label_skew=1.0)
    with pytest.raises(ConfigError, match="--by is refused"):
        choose_sites(PLAN, by="hospital")
    assert len(choose_sites(PLAN, data=file, by="hospital")) == 4
    assert len(choose_sites(PLAN, data=file, by_time="index-date", sites=2)) == 2
    assert len(choose_sites(PLAN, sites=3, patients=60)) == 3


def test_a_data_set_file_may_be_a_site_toml_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    data_set(tmp_path)
    file = tmp_path / "site.toml"
    file.write_text('[site]\nid = "x"\ndeclared_cohort_size = 100\n' + SOURCE)
    assert DataSet.read(file).rows(PLAN).rows == 400
    file.write_text(SOURCE.replace('kind = "table"', 'kind = "tables"'))
    with pytest.raises(ConfigError, match=r"site\.toml cannot be read"):
        DataSet.read(file)


def test_events_are_divided_by_a_file_by_label_and_by_their_index_dates(tmp_path: Path) -> None:
    plan = admissions_plan()
    write_meds_hospital(tmp_path, patients=160)
    (tmp_path / "data.toml").write_text(MEDS_SOURCE)
    data = DataSet.read(tmp_path / "data.toml")
    who = sorted(data.rows(plan).subject_ids)
    lines = [f"{patient},{'east' if place % 2 else 'west'}" for place, patient in enumerate(who)]
    (tmp_path / "sites.csv").write_text("subject_id,site\n" + "\n".join(lines) + "\n")
    for partition in (
        by_column(data, plan, tmp_path / "sites.csv"),
        by_label_skew(data, plan, sites=2, alpha=50),
        by_time(data, plan, sites=2),
    ):
        first, second = tables(partition, plan).values()
        assert sorted(first.subject_ids + second.subject_ids) == who
    assert first.index_time is not None and second.index_time is not None
    assert first.index_time.max() < second.index_time.min()
    with pytest.raises(ConfigError, match="no column 'hospital'") as refused:
        by_column(data, plan, "hospital")
    assert "CSV" in refused.value.todo
