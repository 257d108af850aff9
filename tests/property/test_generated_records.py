"""Whatever the dials, a generated hospital's records keep to their rules."""

from __future__ import annotations

from datetime import date

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.populations import (
    CaseMix,
    Coding,
    Disparity,
    Drift,
    GeneratedPatients,
    Hospital,
    Missing,
)
from simulations.populations.drift import DAY_S, seconds
from simulations.populations.records import Records
from simulations.populations.variables import MEASUREMENT_NAMES, MEASUREMENTS

SHARES = st.floats(0, 1)
SHIFTS = st.floats(-3, 3)
DAYS = st.dates(date(2020, 6, 1), date(2024, 6, 1))
UNITS = st.fixed_dictionaries(
    {}, optional={item.name: st.sampled_from(list(item.units)) for item in MEASUREMENTS}
)
HOSPITALS = st.builds(
    Hospital,
    site_id=st.just("any"),
    patients=st.integers(1, 60),
    begins=st.dates(date(2021, 1, 1), date(2022, 1, 1)),
    ends=st.dates(date(2022, 1, 1), date(2023, 12, 31)),
    case_mix=st.builds(
        CaseMix,
        age_mean_years=st.floats(18, 95),
        male_fraction=SHARES,
        severity=SHIFTS,
        emergency_fraction=SHARES,
        stays_mean=st.floats(1, 6),
    ),
    coding=st.builds(
        Coding,
        diagnoses=st.sampled_from(["SNOMED", "ICD10", "ICD10CM", "ICD10GM", "ICD9CM"]),
        icd_dots=st.booleans(),
        diagnoses_unrecorded=SHARES,
        drugs=st.sampled_from(["RxNorm", "ATC"]),
        local_codes=st.booleans(),
        unmapped=SHARES,
    ),
    log_odds=SHIFTS,
    units=UNITS,
    missing=st.dictionaries(
        st.sampled_from(MEASUREMENT_NAMES),
        st.builds(Missing, share=st.floats(0, 0.99), informative=SHIFTS),
    ),
    label_delay_days=st.floats(0, 500),
    drift=st.lists(
        st.builds(
            Drift,
            begins=DAYS,
            over_days=st.integers(0, 400),
            age_years=st.floats(-30, 30),
            severity=SHIFTS,
            log_odds=SHIFTS,
            units=UNITS,
            units_labelled=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    disparities=st.lists(
        st.builds(
            Disparity,
            group=st.sampled_from(["female", "male", "aged_75_or_more"]),
            missing=SHARES,
            diagnoses_unrecorded=SHARES,
            log_odds=SHIFTS,
        ),
        max_size=2,
    ).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(hospital=HOSPITALS, seed=st.integers(0, 2**40))
def test_records_are_in_order_in_their_time_and_no_more_than_what_is_true(
    hospital: Hospital, seed: int
) -> None:
    (records,) = GeneratedPatients(hospital, seed=seed).records()
    _check_stays(records)
    _check_events(records)
    again = Hospital.model_validate_json(hospital.model_dump_json())
    (same,) = GeneratedPatients(again, seed=seed).records()
    for name, column in vars(records.events).items():
        np.testing.assert_array_equal(column, getattr(same.events, name), err_msg=name)


def _check_stays(records: Records) -> None:
    stays, hospital = records.history.stays, records.hospital
    first = stays.ordinal == 1
    assert first.sum() == hospital.patients  # each has a stay
    assert (np.diff(stays.patient) >= 0).all()
    begins, ends = seconds(hospital.begins), seconds(hospital.ends) + DAY_S
    assert ((stays.admitted_s >= begins) & (stays.admitted_s < ends)).all()
    assert (stays.left_s > stays.index_s).all()
    assert ((stays.risk > 0) & (stays.risk < 1)).all()
    assert ((stays.age_years >= 17) & (stays.age_years <= 95)).all()
    for place, item in enumerate(MEASUREMENTS):
        assert stays.values[:, place].min() >= item.low
        assert stays.values[:, place].max() <= item.high
    recorded = records.died_s[records.died_s >= 0]
    assert set(recorded.tolist()) <= set(stays.died_s.tolist())


def _check_events(records: Records) -> None:
    events, hospital = records.events, records.hospital
    order = (events.patient << 36) + events.time_s
    assert (np.diff(order) >= 0).all()
    taken = seconds(hospital.taken_on) + DAY_S
    assert (events.time_s < taken).all()
    assert (records.contacts.end_s < taken).all()
    has_value = ~np.isnan(events.value)
    assert ((events.unit >= 0) == has_value).all()
    died = records.history.stays.died_s
    dead = np.full(hospital.patients, np.iinfo(np.int64).max)
    dead[records.history.stays.patient[died >= 0]] = died[died >= 0]
    assert (events.time_s <= dead[events.patient]).all()
    assert not (records.diagnosed & ~records.history.patients.conditions).any()
    # Nothing is recorded twice: readers that drop repetitions and those that do not agree.
    rows = np.stack([events.patient, events.time_s, events.code], axis=1)
    assert len(np.unique(rows, axis=0)) == len(rows)
