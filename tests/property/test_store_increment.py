"""A MEDS folder that grows: what an increment makes is what a full build makes, to the bit."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.clock import FixedClock
from common.errors import DataSourceError
from site_client.features import store_build
from site_client.features.store import FeatureStore
from site_client.features.store_build import Built, FeatureBuilder
from site_client.sources.meds_mapping import MedsMapping
from tests.lib.event_hospital import (
    SOURCE,
    admissions_plan,
    write_meds_metadata,
    write_meds_shard,
)
from tests.lib.event_plans import CREATININE

START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
WRITTEN = datetime.datetime(2024, 2, 1, tzinfo=datetime.UTC)
"""When the first file was; each later file a day after, so that the end of the data moves."""
DAY = datetime.timedelta(days=1)
PLAN = admissions_plan(
    cohort__index_date__occurrence="last",
    cohort__exclude=[
        {"description": "On dialysis", "codes": ["SNOMED/108241001"], "days_before": 20}
    ],
    features__1=CREATININE | {"window_days": 6, "time_bins": 3},
    label__prediction_window_days=5,
    label__follow_up="required",
)
days = st.integers(0, 40)
BORN = ("MEDS_BIRTH", None, None, None)
tests = st.tuples(
    st.just("LOINC//2160-0"),
    st.sampled_from([None, 0.5, 1.0, 2.0, 25.0, 90.0]),
    st.none(),
    st.sampled_from([None, "mg/dL", "umol/L", "furlong"]),
)
codes = st.tuples(
    st.sampled_from(["Visit//IP", "Visit//IP", "MEDS_DEATH", "SNOMED//108241001", "a local code"]),
    st.none(),
    st.none(),
    st.none(),
)
events = st.lists(st.tuples(st.integers(1, 30), days, st.one_of(tests, codes)), max_size=9)


def rows_of(found: list[tuple[int, int, tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    return [(subject, START + day * DAY, *event) for subject, day, event in found]


def everybody() -> list[tuple[Any, ...]]:
    """Return births of all and admissions of most, so that few events touch few patients."""
    rows: list[tuple[Any, ...]] = [
        (subject, START - 18_000 * DAY, *BORN) for subject in range(1, 31)
    ]
    for subject in range(1, 25):
        admitted = START + subject % 9 * DAY
        rows.append((subject, admitted, "Visit//IP", None, None, None))
        rows.append((subject, admitted, "LOINC//2160-0", subject / 10, None, "mg/dL"))
        rows.append((subject, admitted + 9 * DAY, "DX//1", None, None, None))
    # Impossible when the first file was written, and no longer when the third was.
    rows.append((7, WRITTEN + 2.5 * DAY, "Visit//IP", None, None, None))
    return rows


def write(folder: Path, number: int, rows: list[tuple[Any, ...]]) -> None:
    path = write_meds_shard(folder, str(number), rows)
    seconds = (WRITTEN + number * DAY).timestamp()
    os.utime(path, (seconds, seconds))


def builder(folder: Path, store: str, *, data_until: bool, drop_duplicates: bool) -> FeatureBuilder:
    declared = tomllib.loads(SOURCE)["source"] | {"drop_duplicates": drop_duplicates}
    if data_until:
        declared["data_until"] = datetime.date(2024, 6, 1)
    return FeatureBuilder(
        FeatureStore(folder / store),
        MedsMapping.model_validate(declared),
        folder=folder,
        scratch=folder / "scratch",
        clock=FixedClock(),
    )


def check_same(grown: FeatureBuilder, one: Built, full: FeatureBuilder, other: Built) -> None:
    ours, theirs = grown.rows(one.entry), full.rows(other.entry)
    assert ours.table.subject_ids == theirs.table.subject_ids
    assert ours.events is not None and theirs.events is not None
    assert np.array_equal(ours.events.index_time, theirs.events.index_time)
    assert ours.table.label.tobytes() == theirs.table.label.tobytes()
    for name, column in theirs.table.numeric.items():
        assert ours.table.numeric[name].tobytes() == column.tobytes()
    for name, levels in theirs.table.levels.items():
        assert ours.table.levels[name].tobytes() == levels.tobytes()
    assert ours.events.attrition == theirs.events.attrition
    assert ours.events.source == theirs.events.source
    assert ours.events.variables == theirs.events.variables
    assert ours.table.counts == theirs.table.counts


def check_growth(
    additions: list[Any], *, data_until: bool, drop_duplicates: bool = False
) -> list[str]:
    folder = Path(tempfile.mkdtemp())
    declared = {"data_until": data_until, "drop_duplicates": drop_duplicates}
    try:
        write_meds_metadata(folder)
        for name in ("codes.parquet", "dataset.json"):
            os.utime(folder / "meds/metadata" / name, (0, 0))
        write(folder, 0, everybody())
        grown = builder(folder, "grown", **declared)
        hows: list[str] = [grown.build(PLAN).how]
        for number, found in enumerate(additions, start=1):
            write(folder, number, rows_of(found))
            full = builder(folder, f"full-{number}", **declared)
            try:
                other = full.build(PLAN)
            except DataSourceError as refused:
                with pytest.raises(DataSourceError, match=refused.refused):
                    grown.build(PLAN)
                continue
            one = grown.build(PLAN)
            hows.append(one.how)
            check_same(grown, one, full, other)
        assert not list((folder / "scratch").iterdir())
        return hows
    finally:
        shutil.rmtree(folder)


additions = st.lists(events, min_size=1, max_size=3)
SLOWLY = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["rewritten", "apart"])
@settings(SLOWLY, max_examples=2)
@given(additions=additions, data_until=st.booleans(), drop_duplicates=st.booleans())
def test_an_increment_is_the_full_build_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    additions: list[Any],
    data_until: bool,
    drop_duplicates: bool,
) -> None:
    monkeypatch.setattr(store_build, "DELTA_SHARE_MAX", share)
    check_growth(additions, data_until=data_until, drop_duplicates=drop_duplicates)


@pytest.mark.slow
@settings(SLOWLY, max_examples=60)
@given(additions=additions, data_until=st.booleans(), drop_duplicates=st.booleans())
def test_an_increment_is_the_full_build_to_the_bit_on_many_sources(
    additions: list[Any], data_until: bool, drop_duplicates: bool
) -> None:
    check_growth(additions, data_until=data_until, drop_duplicates=drop_duplicates)


VISIT = ("Visit//IP", None, None, None)


def test_touched_patients_alone_are_made_anew_when_the_source_grew_by_a_file() -> None:
    grown = [[(3, 20, VISIT)], [(3, 22, VISIT), (30, 2, VISIT)]]
    assert check_growth(grown, data_until=True) == ["full", "increment", "increment"]


def test_an_event_that_is_no_longer_impossible_means_a_full_build() -> None:
    # Each file is written a day after the one before; the third makes patient 7's event possible.
    grown = [[(3, 20, VISIT)], [(4, 20, VISIT)], [(5, 20, VISIT)]]
    assert check_growth(grown, data_until=False) == ["full", "increment", "full", "increment"]
