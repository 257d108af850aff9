"""True histories of generated patients: who they are, their stays, what each stay was like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from simulations.populations.drift import DAY_S, drifted, seconds
from simulations.populations.hospital import Hospital
from simulations.populations.log_odds import probability
from simulations.populations.people import Flags, Floats, History, Patients, Stays, Whole
from simulations.populations.risk import with_outcomes
from simulations.populations.streams import stream
from simulations.populations.variables import (
    AGE_CENTRE_YEARS,
    AGE_YEARS_MAX,
    AGE_YEARS_MIN,
    CONDITIONS,
    DRUGS,
    MEASUREMENTS,
    SMOKING_SHARES,
)

BLOCK_PATIENTS: Final = 20_000
"""Patients who are made at a time: memory does not grow with the hospital."""
HOUR_S: Final = 3_600
MINUTE_S: Final = 60
INDEX_DELAY_S: Final = 24 * HOUR_S
"""From an admission to the index date for which the risk is stated."""
_STAYS_APART_DAYS: Final = 33
"""Between two admissions: the outcome of one is known before the next begins."""
_SAME_PATIENT: Final = 0.7
"""Correlation of a patient's standard scores in two stays."""
_YEAR_DAYS: Final = 365.2425


def histories(hospital: Hospital, *, seed: int) -> Iterator[History]:
    """Yield a hospital's patients in blocks of `BLOCK_PATIENTS`.

    Args:
        hospital: the dials.
        seed: patients are a function of hospital and seed.
    """
    for block, first in enumerate(range(0, hospital.patients, BLOCK_PATIENTS)):
        size = min(BLOCK_PATIENTS, hospital.patients - first)
        patients = _patients(hospital, seed, block, first=first + 1, size=size)
        stays = _stays(hospital, seed, block, patients)
        yield History(hospital, seed, block, patients, stays)


def _patients(hospital: Hospital, seed: int, block: int, *, first: int, size: int) -> Patients:
    def draw(purpose: str) -> np.random.Generator:
        return stream(seed, hospital.site_id, block, purpose)

    mix = hospital.case_mix
    minutes = ((hospital.ends - hospital.begins).days + 1) * DAY_S // MINUTE_S
    first_s = seconds(hospital.begins) + MINUTE_S * draw("first stay").integers(
        0, minutes, size, dtype=np.int64
    )
    shift = sum(
        (item.age_years * drifted(item, first_s) for item in hospital.drift), np.zeros(size)
    )
    score = draw("age").normal(size=size)
    age = np.clip(
        mix.age_mean_years + shift + mix.age_deviation_years * score,
        AGE_YEARS_MIN + 0.1,
        AGE_YEARS_MAX - 2,
    )
    severity = draw("patient").normal(size=size)
    conditions, drugs = _chronic(hospital, draw, age, severity)
    return Patients(
        first=first,
        born_day=_no_leap_day(first_s // DAY_S - np.asarray(age * _YEAR_DAYS, dtype=np.int64)),
        is_male=draw("sex").random(size) < mix.male_fraction,
        smoking=np.searchsorted(np.cumsum(SMOKING_SHARES)[:-1], draw("smoking").random(size)),
        conditions=conditions,
        drugs=drugs,
        age_years=age,
        first_s=first_s,
        severity=severity,
    )


def _chronic(
    hospital: Hospital, draw: Callable[[str], np.random.Generator], age: Floats, severity: Floats
) -> tuple[Flags, Flags]:
    size = len(age)
    lot = draw("conditions").random((size, len(CONDITIONS)))
    shifted = severity + hospital.case_mix.severity
    log_odds = np.stack(
        [
            item.log_odds
            + item.per_decade * (age - AGE_CENTRE_YEARS) / 10
            + item.per_severity * shifted
            for item in CONDITIONS
        ],
        axis=1,
    )
    conditions = np.asarray(lot < probability(log_odds))
    lot = draw("drugs").random((size, len(DRUGS)))
    shares = np.where(
        conditions[:, :1],
        [item.share_heart_failure for item in DRUGS],
        [item.share for item in DRUGS],
    )
    return conditions, np.asarray(lot < shares)


def _stays(hospital: Hospital, seed: int, block: int, patients: Patients) -> Stays:
    def draw(purpose: str) -> np.random.Generator:
        return stream(seed, hospital.site_id, block, purpose)

    mix, size = hospital.case_mix, len(patients)
    number = 1 + draw("number of stays").poisson(mix.stays_mean - 1, size)
    patient = np.repeat(np.arange(size), number)
    ordinal = np.arange(len(patient)) - np.repeat(np.cumsum(number) - number, number)
    gap_days = _STAYS_APART_DAYS + draw("between stays").exponential(150, len(patient))
    gap_s = np.where(ordinal == 0, 0, np.asarray(gap_days * DAY_S, dtype=np.int64))
    gap_s = gap_s // MINUTE_S * MINUTE_S
    since = np.cumsum(gap_s)
    since -= np.repeat(since[np.cumsum(number) - number], number)
    admitted = patients.first_s[patient] + since
    keep = admitted < seconds(hospital.ends) + DAY_S
    shift = np.full(len(patient), mix.severity)
    for item in hospital.drift:
        shift = shift + item.severity * drifted(item, admitted)
    own = draw("stay").normal(size=len(patient))
    severity = _together(patients.severity[patient], own) + shift
    values = _values(draw, patients, patient, severity)
    lots = draw("stays").random((len(patient), 4))
    stays = Stays(
        patient=patient[keep],
        ordinal=ordinal[keep] + 1,
        admitted_s=admitted[keep],
        index_s=admitted[keep] + INDEX_DELAY_S,
        left_s=_left(admitted, severity, lots[:, 0])[keep],
        emergency_s=_emergency(mix.emergency_fraction, admitted, lots[:, 1:3])[keep],
        severity=severity[keep],
        values=values[keep],
    )
    return with_outcomes(
        hospital, patients, stays, died=draw("death").random((len(patient), 2))[keep]
    )


def _together(patient: Floats, own: Floats) -> Floats:
    """Return a standard score of which a part is the patient's in all stays."""
    return np.asarray(_SAME_PATIENT * patient + np.sqrt(1 - _SAME_PATIENT**2) * own)


def _values(
    draw: Callable[[str], np.random.Generator],
    patients: Patients,
    patient: Whole,
    severity: Floats,
) -> Floats:
    """Return each measurement's true value at the index date, in the plan's unit, as recorded."""
    columns = []
    for item in MEASUREMENTS:
        lasting = draw(f"{item.name} of the patient").normal(size=len(patients))
        own = draw(f"{item.name} of the stay").normal(size=len(patient))
        score = item.severity * severity + np.sqrt(1 - item.severity**2) * _together(
            lasting[patient], own
        )
        raw = (
            item.mean * np.exp(item.spread * score)
            if item.is_log
            else (item.mean + item.spread * score)
        )
        decimals = item.units[item.unit].decimals
        columns.append(np.round(np.clip(raw, item.low, item.high), decimals))
    return np.stack(columns, axis=1)


def _left(admitted: Whole, severity: Floats, lot: Floats) -> Whole:
    """Return when each stay ends, if its patient lives: 30 hours to 30 days, longer the sicker."""
    days = np.clip(1.25 - np.log1p(-lot) * 4 * np.exp(0.3 * severity), 1.25, 30)
    return np.asarray(admitted + np.asarray(days * 24 * 60, dtype=np.int64) * MINUTE_S)


def _emergency(fraction: float, admitted: Whole, lots: Floats) -> Whole:
    """Return when the patient came to the emergency department, -1 for an elective stay."""
    before = np.asarray(30 + lots[:, 1] * 450, dtype=np.int64) * MINUTE_S
    return np.where(lots[:, 0] < fraction, admitted - before, -1)


def _no_leap_day(day: Whole) -> Whole:
    """Return the days, 29 February a day earlier: countries differ in when that ages."""
    date = day.astype("datetime64[D]")
    is_february = date.astype("datetime64[M]").astype(np.int64) % 12 == 1
    is_29th = (date - date.astype("datetime64[M]")).astype(np.int64) == 28
    return np.asarray(day - (is_february & is_29th), dtype=np.int64)
