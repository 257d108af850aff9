"""The known risk model: each stay's probability of death within 30 days, and who dies.

Log-odds are `INTERCEPT` plus `WEIGHTS` times what is true at the index date, 24 hours after the
admission: completed years of age, sex, smoking, conditions, drugs, and the last value of each
measurement before it. Hospital, groups and drift shift it by their dials.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from simulations.populations.drift import DAY_S, drifted
from simulations.populations.hospital import Hospital
from simulations.populations.log_odds import probability
from simulations.populations.people import Floats, Patients, Stays, Whole
from simulations.populations.variables import (
    AGE_CENTRE_YEARS,
    CONDITION_NAMES,
    DRUG_NAMES,
    INTERCEPT,
    MEASUREMENTS,
    WEIGHTS,
)

PREDICTION_DAYS: Final = 30
_MINUTES: Final = PREDICTION_DAYS * 24 * 60
_NONE: Final = -1


def with_outcomes(hospital: Hospital, patients: Patients, stays: Stays, *, died: Floats) -> Stays:
    """Return the stays with risk and outcome; none is left after a death.

    Args:
        hospital: its dials.
        patients: of the block.
        stays: without risk.
        died: float64 [stays, 2], a lot each for whether and when.
    """
    ages = completed_years(patients.born_day[stays.patient], stays.index_s)
    log_odds = _log_odds(hospital, patients, stays, ages)
    risk = probability(log_odds)
    dies = died[:, 0] < risk
    minutes = 1 + np.asarray(died[:, 1] * _MINUTES, dtype=np.int64)
    died_s = np.where(dies, stays.index_s + 60 * minutes, _NONE)
    left_s = np.where(dies, np.minimum(stays.left_s, died_s), stays.left_s)
    found = replace(
        stays, age_years=ages, log_odds=log_odds, risk=risk, died_s=died_s, left_s=left_s
    )
    before: Whole = np.cumsum(dies) - dies
    at_first = np.maximum.accumulate(np.where(stays.ordinal == 1, before, 0))
    return found.chosen(before == at_first)


def _log_odds(hospital: Hospital, patients: Patients, stays: Stays, ages: Whole) -> Floats:
    terms = risk_terms(patients, stays, ages)
    shift = np.full(len(stays), INTERCEPT + hospital.log_odds)
    factors = {name: np.ones(len(stays)) for name in WEIGHTS}
    for item in hospital.drift:
        here = drifted(item, stays.index_s)
        shift = shift + item.log_odds * here
        for name, factor in item.weights.items():
            factors[name] = factors[name] * (1 + (factor - 1) * here)
    for disparity in hospital.disparities:
        shift = shift + disparity.log_odds * patients.among(disparity)[stays.patient]
    return np.asarray(
        sum((WEIGHTS[name] * factors[name] * terms[name] for name in WEIGHTS), shift),
        dtype=np.float64,
    )


def risk_terms(patients: Patients, stays: Stays, ages: Whole) -> dict[str, Floats]:
    """Return what each of `WEIGHTS` is multiplied with, float64 [stays]."""
    who = stays.patient
    terms = {
        "age": (ages - AGE_CENTRE_YEARS) / 10,
        "male": patients.is_male[who].astype(np.float64),
        "tobacco_smoking": (patients.smoking[who] == 0).astype(np.float64),
    }
    for place, item in enumerate(MEASUREMENTS):
        terms[item.name] = (stays.values[:, place] - item.centre) / item.per
    for place, name in enumerate(CONDITION_NAMES):
        terms[name] = patients.conditions[who, place].astype(np.float64)
    for place, name in enumerate(DRUG_NAMES):
        terms[name] = patients.drugs[who, place].astype(np.float64)
    return terms


def completed_years(born_day: Whole, at_s: Whole) -> Whole:
    """Return completed years of age."""
    born = born_day.astype("datetime64[D]")
    now = (at_s // DAY_S).astype("datetime64[D]")
    years = now.astype("datetime64[Y]").astype(np.int64) - born.astype("datetime64[Y]").astype(
        np.int64
    )
    is_before = _month_and_day(now) < _month_and_day(born)
    return np.asarray(years - is_before, dtype=np.int64)


def _month_and_day(day: npt.NDArray[np.datetime64]) -> Whole:
    month = day.astype("datetime64[M]")
    number = month.astype(np.int64) % 12
    return np.asarray(number * 100 + (day - month).astype(np.int64), dtype=np.int64)
