"""The feature store over a real source: when it reads, what it keeps, whose rows a study uses."""

from __future__ import annotations

import os
import shutil
import stat
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from common.clock import FixedClock, SystemClock
from common.errors import DataSourceError
from common.protocol.messages import RefusedTask, ReleasedTask
from common.study.plan_file import plan_digest
from site_client.config import SitePaths
from site_client.feature_use import FeaturePins, FeatureUse
from site_client.features import store_build
from site_client.features.event_patients import read_event_patients
from site_client.features.site_rows import SiteRows
from site_client.features.store import ENTRY, FeatureStore
from site_client.features.store_build import FeatureBuilder
from site_client.features.store_entry import parse_entry
from site_client.features.store_rows import rows_of_arrow, rows_to_arrow
from site_client.open_site import open_records
from site_client.site_features import feature_use
from site_client.sources.meds_mapping import MedsMapping
from site_client.sources.open_source import open_source
from site_client.sources.source_mapping import FhirMapping, OmopFolderMapping
from site_client.sources.table import FeatureCounts, PatientTable
from site_client.tasks import SiteTasks
from site_client.training.dp_sgd_engine import DpSgdEngine
from tests.contract.test_sources_of_events import LIMITS
from tests.lib.event_hospital import SOURCE, admissions_plan, write_meds_hospital
from tests.lib.event_plans import plan_for_events
from tests.lib.fhir_writer import write_bundles
from tests.lib.sites_in_process import InProcessSite, make_site
from tests.lib.six_patients_omop import six_patients_tables, write_parquet
from tests.lib.six_sources import ZONE

PLAN = admissions_plan()
MAPPING = MedsMapping.model_validate(tomllib.loads(SOURCE)["source"])
FIRST_SUBJECT = 7_305_114_001
DAY_S = 86_400


def hospital(folder: Path) -> FeatureBuilder:
    write_meds_hospital(folder, patients=120, first=FIRST_SUBJECT)
    return builder(folder)


def builder(folder: Path, clock: FixedClock | None = None) -> FeatureBuilder:
    paths = SitePaths(folder)
    return FeatureBuilder(
        FeatureStore(paths.features),
        MAPPING,
        folder=folder,
        scratch=paths.scratch,
        clock=clock or FixedClock(),
    )


def add_patients(folder: Path, *, first: int, patients: int = 30) -> None:
    """Add a file of new patients to a hospital."""
    (folder / "more").mkdir()
    write_meds_hospital(folder / "more", patients=patients, first=first, seed=first)
    shard = folder / "more/meds/data/all/0.parquet"
    shard.rename(folder / f"meds/data/all/{first}.parquet")
    for path in sorted((folder / "more").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "more").rmdir()


def shard(folder: Path) -> Path:
    return folder / "meds/data/all/0.parquet"


def check_same(one: SiteRows, other: SiteRows) -> None:
    assert one.table.subject_ids == other.table.subject_ids
    for name, column in one.table.numeric.items():
        assert column.tobytes() == other.table.numeric[name].tobytes()
    for name, levels in one.table.levels.items():
        assert np.array_equal(levels, other.table.levels[name])
    assert one.table.label.tobytes() == other.table.label.tobytes()
    assert one.table.counts == other.table.counts


def test_rows_come_back_as_the_source_gave_them(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    direct = read_event_patients(PLAN, open_source(MAPPING, folder=tmp_path), scratch=tmp_path)
    kept = store.rows(store.build(PLAN).entry)
    check_same(kept, SiteRows(direct.table, direct))
    assert kept.events is not None
    assert kept.events.attrition == direct.attrition
    assert kept.events.source == direct.source
    assert kept.events.variables == direct.variables
    assert np.array_equal(kept.events.index_time, direct.index_time)


def test_every_bit_of_a_number_is_kept_and_so_are_features_in_time_bins() -> None:
    values = np.array([0.1, -0.0, np.nan, 5e-324, 1e308])
    bins = np.arange(15.0).reshape(5, 3)
    bins[2, 1] = np.nan
    counts = {name: FeatureCounts() for name in ("a", "b", "c")}
    table = PatientTable(
        subject_ids=("1", "10", "2", "é", "\u4e2d"),
        numeric={"a": values, "b": bins},
        levels={"c": np.array([0, -1, 3, 1, 2])},
        label=np.array([0, 1, 1, 0, 1], np.float32),
        counts=counts,
        unlabelled=0,
    )
    times = np.arange(5).astype("datetime64[us]")
    found, found_times = rows_of_arrow(rows_to_arrow(table, times), counts)
    assert found.subject_ids == table.subject_ids
    assert found.numeric["a"].tobytes() == values.tobytes()
    assert found.numeric["b"].tobytes() == bins.tobytes()
    assert found.levels["c"].tolist() == [0, -1, 3, 1, 2]
    assert np.array_equal(found_times, times)


def test_an_unchanged_source_is_not_read_again_even_when_its_files_were_touched(
    tmp_path: Path,
) -> None:
    store = hospital(tmp_path)
    first = store.build(PLAN)
    assert first.how == "full"
    assert store.build(PLAN).how == "cached"
    os.utime(shard(tmp_path))
    again = store.build(PLAN)
    assert (again.how, again.entry.id) == ("cached", first.entry.id)


def test_a_changed_byte_is_seen_even_when_size_and_time_are_as_before(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    store.build(PLAN)
    before = shard(tmp_path).stat()
    table = parquet.read_table(shard(tmp_path))
    other = pa.array(
        ["GENDER//M" if code == "GENDER//F" else code for code in table.column("code").to_pylist()]
    )
    whole = shard(tmp_path).read_bytes()
    parquet.write_table(table.set_column(2, "code", other), shard(tmp_path))
    os.utime(shard(tmp_path), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.build(PLAN).how == "full"
    shard(tmp_path).write_bytes(whole)
    os.utime(shard(tmp_path), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.build(PLAN).how == "cached"


def test_another_plan_or_software_or_mapping_has_an_entry_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hospital(tmp_path)
    known = {store.build(PLAN).entry.id}
    known.add(store.build(admissions_plan(cohort__age_years_min=40)).entry.id)
    monkeypatch.setattr(store_build, "software_version", lambda: "another")
    known.add(store.build(PLAN).entry.id)
    assert store.newest(PLAN) is not None
    other = MAPPING.model_copy(update={"unit_missing": ("", "UNK")})
    paths = SitePaths(tmp_path)
    changed = FeatureBuilder(
        FeatureStore(paths.features),
        other,
        folder=tmp_path,
        scratch=paths.scratch,
        clock=FixedClock(),
    )
    assert changed.newest(PLAN) is None
    known.add(changed.build(PLAN).entry.id)
    assert len(known) == 4


def test_a_damaged_entry_is_refused_and_a_build_makes_it_whole_again(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    entry = store.build(PLAN).entry
    rows = store.rows(entry)
    folder = SitePaths(tmp_path).features / entry.id
    path = folder / entry.files["rows"].name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert store.newest(PLAN) is None
    with pytest.raises(DataSourceError, match="is damaged: a Parquet file") as refused:
        store.rows(entry)
    assert refused.value.__context__ is None
    again = store.build(PLAN)
    assert again.how == "full"
    check_same(store.rows(again.entry), rows)
    (folder / ENTRY).write_bytes(
        (folder / ENTRY).read_bytes().replace(b'"rows":120', b'"rows":121')
    )
    with pytest.raises(DataSourceError, match="is damaged: its description"):
        parse_entry((folder / ENTRY).read_bytes())
    assert store.build(PLAN).how == "full"


OMOP = OmopFolderMapping(kind="omop", path="data")
FHIR = FhirMapping(kind="fhir", path="data", time_zone=ZONE)


@pytest.mark.parametrize("mapping", [OMOP, FHIR], ids=["omop", "fhir"])
def test_other_sources_are_read_whole_when_a_byte_changed_and_else_not_at_all(
    tmp_path: Path, mapping: OmopFolderMapping | FhirMapping
) -> None:
    (tmp_path / "data").mkdir()
    if mapping is OMOP:
        write_parquet(tmp_path / "data", six_patients_tables())
    else:
        write_bundles(tmp_path / "data")
    store = FeatureBuilder(
        FeatureStore(tmp_path / "features"),
        mapping,
        folder=tmp_path,
        scratch=tmp_path / "scratch",
        clock=FixedClock(),
    )
    plan = plan_for_events()
    hows = [store.build(plan).how for _ in range(2)]
    changed = max((tmp_path / "data").iterdir(), key=lambda path: path.stat().st_size)
    before = changed.read_bytes()
    if mapping is OMOP:
        table = parquet.read_table(changed)
        parquet.write_table(table, changed, compression="gzip")
    else:
        changed.write_bytes(before + b"\n")
    hows.append(store.build(plan).how)
    changed.write_bytes(before)
    hows.append(store.build(plan).how)
    assert hows == ["full", "cached", "full", "cached"]
    assert store.rows(store.build(plan).entry).table.subject_ids == ("101", "102", "103")
    names = [path.name.encode() for path in (tmp_path / "data").iterdir()]
    for path in (tmp_path / "features").rglob("*.json"):
        assert not any(name in path.read_bytes() for name in names)


def test_only_the_agents_account_can_read_the_store(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        hospital(tmp_path).build(PLAN)
    finally:
        os.umask(before)
    features = SitePaths(tmp_path).features
    for path in [features, *features.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_no_patient_is_in_a_name_or_a_description(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    store.build(PLAN)
    add_patients(tmp_path, first=FIRST_SUBJECT + 1000)
    assert store.build(PLAN).how == "increment"
    for path in SitePaths(tmp_path).features.rglob("*"):
        assert "7305114" not in path.name and "7305115" not in path.name
        if path.is_file() and path.suffix != ".parquet":
            assert b"7305114" not in path.read_bytes()
            assert b"7305115" not in path.read_bytes()


def test_a_source_that_changes_while_it_is_read_makes_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hospital(tmp_path)

    def read_and_grow(*args: Any, **kwargs: Any) -> Any:
        found = read_event_patients(*args, **kwargs)
        add_patients(tmp_path, first=1)
        return found

    monkeypatch.setattr(store_build, "read_event_patients", read_and_grow)
    with pytest.raises(DataSourceError, match="changed while it was read"):
        store.build(PLAN)
    assert FeatureStore(SitePaths(tmp_path).features).entries() == ()


def test_rows_that_do_not_fit_the_plan_make_no_entry(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    with pytest.raises(DataSourceError, match="no patient of this source"):
        store.build(admissions_plan(cohort__index_date__codes=["Visit/ICU"]))
    assert FeatureStore(SitePaths(tmp_path).features).entries() == ()
    assert list(SitePaths(tmp_path).scratch.iterdir()) == []


def test_a_build_removes_what_a_killed_one_left_in_the_scratch_folder(tmp_path: Path) -> None:
    store = hospital(tmp_path)
    left = SitePaths(tmp_path).scratch / "features-killed/staged-events"
    left.mkdir(parents=True)
    (left / "0.events").write_bytes(b"events of patients")
    assert store.build(PLAN).how == "full"
    assert list(SitePaths(tmp_path).scratch.iterdir()) == []


def test_two_builds_at_a_time_make_one_entry(tmp_path: Path) -> None:
    hospital(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: builder(tmp_path).build(PLAN), range(2)))
    assert sorted(built.how for built in found) == ["cached", "full"]
    assert found[0].entry.id == found[1].entry.id


def restarted(site: InProcessSite) -> InProcessSite:
    """Return the site with a new agent over the same files."""
    records, _ = open_records(site.paths, clock=SystemClock(), key=site.keys.signing.verify_key)
    site.tasks = SiteTasks(
        site.config,
        folder=site.paths.home,
        keys=site.keys,
        records=records,
        clock=SystemClock(),
        engine=DpSgdEngine(),
    )
    return site


def use_of(site: InProcessSite) -> FeatureUse:
    use = feature_use(site.config, site.paths, site.tasks._records, SystemClock())
    assert use is not None
    return use


def trained_on(site: InProcessSite) -> int:
    made = site.tasks._features._made  # type: ignore[attr-defined]
    return len(made[1].y)


def test_a_study_goes_on_with_the_rows_with_which_it_began_until_somebody_decides(
    tmp_path: Path,
) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=PLAN, limits=LIMITS)
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    [began] = use_of(site).in_use()
    add_patients(tmp_path, first=500)
    newer = builder(tmp_path, FixedClock(2_000_000_000)).build(PLAN)
    assert (newer.how, newer.entry.patients) == ("increment", 230)
    assert isinstance(restarted(site).ask(site.envelope(2)), ReleasedTask)
    assert trained_on(site) == 200
    assert use_of(site).in_use() == {began}
    use_of(site).drop([began], moves_studies=True)
    assert isinstance(restarted(site).ask(site.envelope(3)), ReleasedTask)
    assert trained_on(site) == 230


def test_a_study_whose_rows_are_gone_is_refused_and_not_given_others(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=PLAN, limits=LIMITS)
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    [began] = use_of(site).in_use()
    use_of(site).drop([began], moves_studies=False)
    answer = restarted(site).ask(site.envelope(2))
    assert isinstance(answer, RefusedTask) and answer.number == "R14"


def test_what_no_running_study_uses_is_deleted_after_its_days_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=PLAN, limits=LIMITS)
    now_s = SystemClock().now_s()
    old = builder(tmp_path, FixedClock(now_s - 91 * DAY_S)).build(PLAN).entry
    other = admissions_plan(cohort__age_years_min=40)
    builder(tmp_path, FixedClock(now_s - 91 * DAY_S)).build(other)
    young = builder(tmp_path, FixedClock(now_s - 89 * DAY_S)).build(
        admissions_plan(cohort__age_years_min=50)
    )
    use = use_of(site)
    assert [item.key.plan_digest for item in use.drop_older()] == [plan_digest(other)]
    assert {item.id for item in use.store.entries()} == {old.id, young.entry.id}
    site.tasks._records.approvals.withdraw(
        site.tasks._records.approvals.all_approvals()[0].study_id
    )
    assert [item.id for item in use.drop_older()] == [old.id]


def test_before_its_first_release_a_study_uses_its_newest_entry(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=PLAN, limits=LIMITS)
    entry = builder(tmp_path).build(PLAN).entry
    # The source changes, but nobody has built since.
    add_patients(tmp_path, first=500)
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    pins = site.tasks._records.feature_pins
    assert isinstance(pins, FeaturePins)
    assert pins.find(plan_digest(PLAN)) == entry.id
    assert trained_on(site) == 200


def test_an_entry_under_anothers_name_is_damaged(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=60)
    first, other = (
        builder(tmp_path).build(admissions_plan(study__id=name)).entry for name in ("one", "two")
    )
    store = FeatureStore(SitePaths(tmp_path).features)
    folder = SitePaths(tmp_path).features
    shutil.copyfile(folder / other.id / "entry.json", folder / first.id / "entry.json")
    with pytest.raises(DataSourceError, match="damaged"):
        store.entry(first.id)
    assert [item.id for item in store.entries()] == [other.id]
