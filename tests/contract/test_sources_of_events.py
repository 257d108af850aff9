"""A site with any kind of source takes part: `site.toml`, check, preview, training, the pin."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, DataSourceError, PlanError
from common.limits import PARAMETERS_BYTES_MAX
from common.protocol.arrays import decode_parameters
from common.protocol.messages import RefusedTask, ReleasedTask
from common.study.columns import parameter_shapes
from common.study.plan_file import read_plan
from site_client.config import SitePaths, read_site_config
from site_client.features.site_rows import read_rows
from site_client.features.store import FeatureStore
from site_client.source_pin import identifier_of
from site_client.sources.event_tables import EventTables
from site_client.sources.fhir import FhirFolder
from site_client.sources.meds import MedsFolder
from site_client.sources.omop import OmopFolder
from site_client.sources.omop_duckdb import OmopDuckDB
from site_client.sources.omop_postgresql import OmopPostgres
from site_client.sources.open_source import open_source
from site_client.sources.source_mapping import MedsMapping
from site_client.sources.table_mapping import TableMapping
from tests.lib.event_hospital import (
    COHORT,
    SOURCE,
    admissions_plan,
    write_meds_hospital,
)
from tests.lib.event_plans import CREATININE
from tests.lib.sites_in_process import PLAN, make_site

HEAD = """
[site]
id = "northfield"
declared_cohort_size = 300
[limits]
epsilon_per_study = 4.0
epsilon_total = 8.0
delta_total = 1e-3
cohort_size_min = 50
[source]
"""
LIMITS = HEAD.split("[source]", maxsplit=1)[0].split("300\n")[1]
BINNED = CREATININE | {"window_days": 1, "time_bins": 24}
KINDS: dict[str, tuple[str, type]] = {
    "omop": ('path = "cdm"\ntime_zone = "Europe/London"\ndata_until = 2026-01-01', OmopFolder),
    "omop_duckdb": ('path = "cdm.db"\nschema = "cdm"', OmopDuckDB),
    "omop_postgresql": ('url = "postgresql://reader@db/cdm"\nschema = "cdm"', OmopPostgres),
    "fhir": (
        'path = "export"\ntime_zone = "Europe/London"\ndata_until = 2026-01-01',
        FhirFolder,
    ),
    "meds": ('path = "meds"', MedsFolder),
    "event_tables": (
        '[source.subjects]\nfile = { path = "patients.csv" }\nsubject = "id"',
        EventTables,
    ),
}


def write_config(folder: Path, source: str) -> SitePaths:
    (folder / "site.toml").write_text(HEAD + source)
    return SitePaths(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_site_toml_takes_every_kind_of_source(tmp_path: Path, kind: str) -> None:
    keys, reader = KINDS[kind]
    paths = write_config(tmp_path, f'kind = "{kind}"\n{keys}\n')
    mapping = read_site_config(paths).source
    assert mapping.kind == kind and not isinstance(mapping, TableMapping)
    assert type(open_source(mapping, folder=tmp_path)) is reader


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ('kind = "fhir"\npath = "x"', "source.time_zone"),
        ('kind = "fhir"\npath = "x"\ntime_zone = "Mars/Olympus"', "source.time_zone"),
        ('kind = "omop"\npath = "x"\npaht = "y"', "source.paht"),
        ('kind = "omop_postgresql"\nurl = "mysql://db"', "source.url"),
        ('path = "x"', "source.kind"),
    ],
)
def test_a_wrong_source_is_refused_with_its_key(tmp_path: Path, source: str, where: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_site_config(write_config(tmp_path, source))
    assert f"{where}:" in refused.value.arrived


def test_two_sources_of_one_kind_tell_patients_apart_alike_and_two_kinds_do_not(
    tmp_path: Path,
) -> None:
    found = [
        identifier_of(read_site_config(write_config(tmp_path, f'kind = "{kind}"\n{keys}\n')).source)
        for kind, (keys, _) in KINDS.items()
    ]
    assert len(set(found[:3])) == 1
    assert len(set(found)) == 4


def test_a_site_with_events_trains_and_evaluates_and_leaves_nothing_in_its_scratch_folder(
    tmp_path: Path,
) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=admissions_plan(), limits=LIMITS)
    trained = site.ask(site.envelope(1))
    assert isinstance(trained, ReleasedTask) and trained.update is not None
    assert list(SitePaths(tmp_path).scratch.iterdir()) == []
    # What the study began with stays, whatever becomes of the source.
    (tmp_path / "meds").rename(tmp_path / "moved")
    assert isinstance(site.ask(site.envelope(2)), ReleasedTask)


def test_bins_are_equal_parts_of_the_window_and_hold_their_later_end(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=40)
    table = rows_of(tmp_path, features__1=BINNED).table
    recorded = ~np.isnan(table.numeric["creatinine"])
    # The index date is 24 hours after admission; values are of hours 1, 9 and 20.
    assert np.flatnonzero(recorded.all(axis=0)).tolist() == [0, 8, 19]
    assert recorded.sum() == 3 * len(recorded)
    latest = rows_of(tmp_path).table.numeric["creatinine"]
    assert np.array_equal(table.numeric["creatinine"][:, 19], latest)


def test_a_recurrent_model_trains_on_time_bins_of_events(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=200)
    plan = admissions_plan(features__1=BINNED, model={"kind": "gru", "width": 4})
    site = make_site(tmp_path, source=SOURCE, plan=plan, limits=LIMITS)
    trained = site.ask(site.envelope(1))
    assert isinstance(trained, ReleasedTask)
    update = decode_parameters(
        trained.update, expected=parameter_shapes(plan), bytes_max=PARAMETERS_BYTES_MAX
    )
    assert all(np.isfinite(array).all() and array.any() for array in update.values())


def test_a_table_has_no_time_bins(tmp_path: Path) -> None:
    plan = read_plan(PLAN)
    features = tuple(
        item.model_copy(update={"time_bins": 4}) if item.name == "cholesterol" else item
        for item in plan.features
    )
    site = make_site(tmp_path)
    with pytest.raises(DataSourceError, match="cholesterol"):
        read_rows(
            plan.model_copy(update={"features": features}),
            site.config.source,
            folder=tmp_path,
            scratch=tmp_path / "scratch",
        )


def test_a_site_that_changes_from_events_to_a_table_is_refused_after_its_first_release(
    tmp_path: Path,
) -> None:
    write_meds_hospital(tmp_path, patients=200)
    site = make_site(tmp_path, source=SOURCE, plan=admissions_plan(), limits=LIMITS)
    site.ask(site.envelope(1))
    pin = site.tasks._records.source_pin
    assert pin is not None
    table = tomllib.loads('kind = "table"\npath = "x"\nsubject_id = "id"\nfeatures = {}')
    table["label"] = {"column": "y", "positive": ("1",), "negative": ("0",)}
    with pytest.raises(DataSourceError, match="no longer tells who was in earlier releases"):
        pin.check(TableMapping.model_validate(table), folder=tmp_path, salt=site.keys.salt)


def rows_of(folder: Path, **changes: Any) -> Any:
    mapping = MedsMapping.model_validate(tomllib.loads(SOURCE)["source"])
    plan = admissions_plan(**changes)
    return read_rows(plan, mapping, folder=folder, scratch=folder / "scratch")


def test_units_of_one_code_are_brought_to_the_plans(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=100)
    values = rows_of(tmp_path).table.numeric["creatinine"]
    # Half of the values are recorded in umol/L, 88.4 times as large.
    assert 0 < values.min() < values.max() < 6


def test_rows_that_do_not_fit_the_plan_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=100)
    with pytest.raises(PlanError, match="when a patient's row begins"):
        rows_of(tmp_path, cohort__index_date=...)
    with pytest.raises(DataSourceError, match="no patient of this source is in the plan's cohort"):
        rows_of(tmp_path, cohort__index_date__codes=["Visit/ICU"])
    with pytest.raises(DataSourceError, match=r"creatinine has no usable value in 100 of 100"):
        rows_of(
            tmp_path, features__1=CREATININE | {"codes": ["LOINC/718-7"], "missing": "none_allowed"}
        )
    with pytest.raises(DataSourceError, match="too many values of creatinine are outside"):
        rows_of(tmp_path, features__1=CREATININE | {"plausible_range": [0, 0.5], "clip": [0, 0.5]})


def test_a_refused_source_is_a_numbered_refusal_and_quotes_no_row(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=200)
    plan = admissions_plan(cohort__index_date__codes=["Visit/ICU"])
    site = make_site(tmp_path, source=SOURCE, plan=plan, limits=LIMITS)
    answer = site.ask(site.envelope(1))
    assert isinstance(answer, RefusedTask) and answer.number == "R13"


@pytest.mark.parametrize("patients", [0, 1, 30])
@pytest.mark.parametrize("upper", [0.01, 20])
def test_of_too_few_patients_a_refusal_tells_neither_their_number_nor_their_values(
    tmp_path: Path, patients: int, upper: float
) -> None:
    write_meds_hospital(tmp_path, patients=max(1, patients))
    creatinine = CREATININE | {
        "plausible_range": [0, upper],
        "clip": [0, upper],
        "missing": "none_allowed",
    }
    entry = "Visit/IP" if patients else "Visit/ICU"
    cohort = COHORT | {"index_date": COHORT["index_date"] | {"codes": [entry]}}
    plan = admissions_plan(features__1=creatinine, cohort=cohort)
    site = make_site(tmp_path, source=SOURCE, plan=plan, limits=LIMITS)
    answer = site.ask(site.envelope(1))
    assert isinstance(answer, RefusedTask) and answer.number == "R13"
    assert not site.tasks._records.ledger.entries()


def test_events_that_did_not_fit_are_not_read_again_for_the_next_request(tmp_path: Path) -> None:
    write_meds_hospital(tmp_path, patients=200)
    plan = admissions_plan(features__1=CREATININE | {"plausible_range": [0, 0.5], "clip": [0, 0.5]})
    site = make_site(tmp_path, source=SOURCE, plan=plan, limits=LIMITS)
    for _ in range(2):
        answer = site.ask(site.envelope(1))
        assert isinstance(answer, RefusedTask) and answer.number == "R14"
        if (tmp_path / "meds").exists():
            (tmp_path / "meds").rename(tmp_path / "moved")


def test_the_unit_that_is_none_is_told_with_its_feature(tmp_path: Path) -> None:
    # Rule P42 refuses such a plan; one of an older coordinator may still have it.
    write_meds_hospital(tmp_path, patients=30)
    plan = admissions_plan()
    features = tuple(
        item.model_copy(update={"unit": "bpm"}) if item.name == "creatinine" else item
        for item in plan.features
    )
    mapping = MedsMapping.model_validate(tomllib.loads(SOURCE)["source"])
    with pytest.raises(PlanError, match="creatinine"):
        read_rows(
            plan.model_copy(update={"features": features}),
            mapping,
            folder=tmp_path,
            scratch=tmp_path / "scratch",
        )


def test_rows_of_too_few_patients_are_not_kept_for_a_later_lower_minimum(tmp_path: Path) -> None:
    """They were asked nothing: kept, they would pass for rows that fit the plan."""
    write_meds_hospital(tmp_path, patients=30)
    plan = admissions_plan(features__1=CREATININE | {"plausible_range": [0, 0.5], "clip": [0, 0.5]})
    site = make_site(tmp_path, source=SOURCE, plan=plan, limits=LIMITS)
    assert isinstance(site.ask(site.envelope(1)), RefusedTask)
    assert FeatureStore(SitePaths(tmp_path).features).names() == ()
