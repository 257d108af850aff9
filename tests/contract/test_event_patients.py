"""One plan gives one table of rows from whatever format the hospital keeps its events in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest

from common.errors import DataSourceError, PlanError
from site_client.features.event_patients import EventPatients, read_event_patients
from site_client.features.matrix import build_matrix
from site_client.sources.events import SourceCounts
from site_client.sources.omop import OmopFolder
from site_client.sources.table import MISSING_LEVEL
from tests.lib.damaged_files import MARKER
from tests.lib.event_plans import COHORT, CREATININE, DEATH_IN_A_MONTH, plan_for_events
from tests.lib.plans import make_plan
from tests.lib.six_patients_meds import SIX, write_six
from tests.lib.six_patients_meds import source as meds_source
from tests.lib.six_patients_omop import six_patients_tables, write_csv
from tests.lib.six_sources import SOURCES


@pytest.fixture(params=list(SOURCES))
def patients(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., EventPatients]:
    source = SOURCES[request.param](tmp_path / "data")
    (tmp_path / "scratch").mkdir()
    return lambda plan: read_event_patients(plan, source, scratch=tmp_path / "scratch")


def test_rows_features_and_label_are_the_same_from_every_format(
    patients: Callable[..., EventPatients],
) -> None:
    found = patients(plan_for_events())
    table = found.table
    assert table.subject_ids == ("101", "102", "103")
    assert table.label.tolist() == [1.0, 0.0, 0.0]
    # Completed years on 4 February 2021, 16 June 2020 and 25 December 2022.
    assert table.numeric["age"].tolist() == [79.0, 41.0, 19.0]
    # The last creatinine, 176.8 umol/L, in the plan's mg/dL by creatinine's molar mass.
    np.testing.assert_allclose(table.numeric["creatinine"], [2.0, np.nan, np.nan], rtol=1e-4)
    assert table.levels["sex"].tolist() == [0, 1, 0]
    assert [(step.rows, step.patients) for step in found.attrition] == [(3, 3)] * 5
    matrix = build_matrix(table, plan_for_events(), salt=b"0" * 32)
    assert matrix.x.shape == (3, len(matrix.columns))


def test_ages_outside_the_plans_are_left_out(patients: Callable[..., EventPatients]) -> None:
    plan = plan_for_events(cohort={**COHORT, "age_years_max": 79, "age_years_min": 20})
    found = patients(plan)
    assert found.table.subject_ids == ("101", "102")
    assert found.attrition[-1].patients == 2


def test_criteria_of_the_plan_keep_and_leave_out(patients: Callable[..., EventPatients]) -> None:
    seen = {"description": "Creatinine", "codes": ["LOINC/2160-0"], "days_before": 30}
    for key, expected in (("require", ("101",)), ("exclude", ("102", "103"))):
        plan = plan_for_events(cohort={**COHORT, key: [seen]})
        assert patients(plan).table.subject_ids == expected


class LazilyDamaged:
    """A source whose view breaks when it is read, as a file that changed under it does."""

    def files(self) -> None:
        return None

    def fingerprint(self) -> str:
        return ""

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        connection.execute(
            f'CREATE VIEW "{table}" AS SELECT cell AS subject_id, cell::TIMESTAMP AS time, '
            "'Visit/IP' AS code, 1.0 AS numeric_value, '' AS unit, '' AS text_value "
            f"FROM (VALUES ('{MARKER}')) AS t(cell)"
        )
        return SourceCounts()

    def descendants(self, codes: frozenset[str]) -> dict[str, frozenset[str]]:
        return {code: frozenset({code}) for code in codes}


def test_what_breaks_in_the_middle_of_a_build_is_said_without_a_cell(tmp_path: Path) -> None:
    with pytest.raises(DataSourceError) as caught:
        read_event_patients(plan_for_events(), LazilyDamaged(), scratch=tmp_path)
    assert MARKER not in repr(caught.value.as_record()) + str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_plan_without_an_index_date_reads_no_events(tmp_path: Path) -> None:
    source = OmopFolder(write_csv(tmp_path / "data", six_patients_tables()))
    with pytest.raises(PlanError, match="index_date"):
        read_event_patients(make_plan(), source, scratch=tmp_path)


def test_a_level_that_was_not_recorded_is_missing(patients: Callable[..., EventPatients]) -> None:
    smoker = {
        "kind": "categorical",
        "name": "smoker",
        "description": "Tobacco smoking status",
        "codes": ["LOINC/72166-2"],
        "levels": ["SNOMED/8517006", "SNOMED/77176002"],
    }
    table = patients(plan_for_events(features__2=smoker, fairness_groups=[])).table
    assert table.levels["smoker"].tolist() == [MISSING_LEVEL, 0, MISSING_LEVEL]


def test_a_file_damaged_after_it_was_counted_is_one_refusal_without_a_value(
    tmp_path: Path,
) -> None:
    folder = write_six(tmp_path / "meds")
    shard = folder / "data/train/0.parquet"
    whole = shard.read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    refused = 0
    for place in range(4, len(whole) - 8, 97):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_event_patients(plan_for_events(), meds_source(tmp_path, **SIX), scratch=scratch)
        except DataSourceError as error:
            refused += 1
            assert error.__context__ is None
        assert not list(scratch.iterdir())
    assert refused


IN_A_PROCESS_OF_ITS_OWN = """
import json, sys
from pathlib import Path
from site_client.features.event_patients import read_event_patients
from site_client.sources.meds import MedsFolder
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.plans import make_plan
folder, mapping, plan = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
source = MedsFolder(MedsMapping.model_validate(mapping), folder=folder)
assert read_event_patients(make_plan(**plan), source, scratch=folder).table.rows
assert "duckdb" in sys.modules
assert "pandas" not in sys.modules
"""


def test_a_build_from_parquet_does_not_import_pandas(tmp_path: Path) -> None:
    write_six(tmp_path / "meds")
    mapping = {"kind": "meds", "path": "meds", **SIX}
    plan = {"cohort": COHORT, "label": DEATH_IN_A_MONTH, "features__1": CREATININE}
    words = [str(tmp_path), json.dumps(mapping, default=str), json.dumps(plan)]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
