"""What a hospital records of its patients' histories: coded, in its units, with its gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulations.populations.codes import LOCAL, PLACES, unmapped_code, without_dot
from simulations.populations.contacts import Contacts, contacts_of
from simulations.populations.drift import DAY_S, seconds
from simulations.populations.hospital import Hospital
from simulations.populations.log_odds import probability
from simulations.populations.people import Flags, Floats, History, Whole
from simulations.populations.units import recorded_units
from simulations.populations.variables import (
    CONDITIONS,
    DRUGS,
    MEASUREMENTS,
    SMOKING_CODE,
    Measurement,
)

NONE: Final = -1
CLINIC_MEASURES: Final = frozenset({"creatinine", "glucose", "systolic_bp"})
"""What the outpatient clinic measures."""
_MEASURED_AFTER_S: Final = 600
_DIAGNOSED_AFTER_S: Final = 7_200
_ASKED_AFTER_S: Final = 10_800
_GIVEN_AFTER_S: Final = 18_000


@dataclass(frozen=True)
class Events:
    """Records with a time and a code, in order of patient and time.

    Args:
        patient: int64 [events], place in the block's patients.
        time_s: int64 [events], seconds since 1970.
        code: int64 [events], place in `CODES`.
        value: float64 [events], as recorded; NaN where there is none.
        unit: int64 [events], place in `UNITS`, as the record says; -1 where there is none.
        answer: int64 [events], place in `SMOKING`; -1 where there is none.
    """

    patient: Whole
    time_s: Whole
    code: Whole
    value: Floats
    unit: Whole
    answer: Whole

    def __len__(self) -> int:
        """Number of events."""
        return len(self.patient)

    def part(self, rows: slice) -> Events:
        """Return some of the events."""
        return Events(*(getattr(self, name)[rows] for name in Events.__dataclass_fields__))


@dataclass(frozen=True)
class Records:
    """What one block's data hold.

    Args:
        history: what is true.
        contacts: visits that are recorded.
        died_s: int64 [patients], the death as the data have it; -1: none, or not yet entered.
        events: all others.
        read: float64 [stays, measurements], the last value in the stay as a right reader reads it,
            in the plan's unit; NaN where none was recorded under a code that means it.
        diagnosed: bool [patients, conditions], whether it is ever coded.
    """

    history: History
    contacts: Contacts
    died_s: Whole
    events: Events
    read: Floats
    diagnosed: Flags

    @property
    def hospital(self) -> Hospital:
        """Whose data."""
        return self.history.hospital


def record(history: History) -> Records:
    """Return what the hospital has in its data of a block."""
    contacts = contacts_of(history)
    events, read = [], []
    for place, item in enumerate(MEASUREMENTS):
        found, last = _measured(history, contacts, place, item)
        events.append(found)
        read.append(last)
    diagnosed = _diagnosed(history)
    events += [
        _diagnoses(history, contacts, diagnosed),
        _drugs(history),
        _smoking(history, contacts),
    ]
    return Records(
        history,
        contacts,
        _deaths(history),
        _in_order(events),
        np.stack(read, axis=1),
        diagnosed,
    )


def _in_order(parts: list[Events]) -> Events:
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in Events.__dataclass_fields__
    ]
    patient, time_s = columns[0], columns[1]
    # One whole number that orders: no patient's time is as far from another's as this.
    order = np.argsort((patient << 36) + time_s, kind="stable")
    return Events(*(column[order] for column in columns))


def _coded(patient: Whole, time_s: Whole, code: Whole, answer: Whole | None = None) -> Events:
    nothing = np.full(len(patient), NONE)
    value = np.full(len(patient), np.nan)
    return Events(patient, time_s, code, value, nothing, nothing if answer is None else answer)


def _measured(
    history: History, contacts: Contacts, place: int, item: Measurement
) -> tuple[Events, Floats]:
    """Return a measurement's records in stays and at the clinic, and what is read in each stay."""
    stays, clinic = history.stays, contacts.clinic
    rng = history.stream(f"readings of {item.name}")
    times = contacts.vitals_s if item.is_vital else contacts.laboratory_s
    true = stays.values[:, place]
    values = np.repeat(true[:, None], times.shape[1], axis=1)
    values[:, :-1] = _near(item, values[:, :-1], rng)
    at_clinic = _near(item, true[clinic.stay][:, None], rng)
    missing = _missing(history, item, stays.patient, stays.severity, "stay")
    missing_there = _missing(history, item, clinic.patient, stays.severity[clinic.stay], "clinic")
    unmapped = history.stream(f"unmapped {item.name}").random(len(stays)) < (
        history.hospital.coding.unmapped
    )
    in_stays = _Series(stays.patient, stays.admitted_s, times, values, ~missing, unmapped, "stay")
    at_clinics = _Series(
        clinic.patient,
        clinic.time_s,
        clinic.time_s[:, None] + _MEASURED_AFTER_S,
        at_clinic,
        ~missing_there & (item.name in CLINIC_MEASURES),
        np.zeros(len(clinic), bool),
        "clinic",
    )
    found, last = _recorded(history, item, in_stays)
    there, _ = _recorded(history, item, at_clinics)
    return _in_order([found, there]), last


@dataclass(frozen=True)
class _Series:
    """Readings of one measurement: a row for each stay or visit, a column for each time."""

    patient: Whole
    begun_s: Whole
    time_s: Whole
    values: Floats
    is_made: Flags
    is_unmapped: Flags
    where: str


def _recorded(history: History, item: Measurement, series: _Series) -> tuple[Events, Floats]:
    """Return the records, and the last value of each row as a right reader reads it."""
    used = recorded_units(history.hospital, item, series.begun_s)
    numbers = series.values * used.factor[:, None] + used.offset[:, None]
    recorded = _rounded(numbers, used.decimals)
    code = _codes(history, item, used.usual, series)
    made, width = series.is_made, series.time_s.shape[1]
    events = Events(
        np.repeat(series.patient[made], width),
        series.time_s[made].reshape(-1),
        np.repeat(code[made], width),
        recorded[made].reshape(-1),
        np.repeat(used.said[made], width),
        np.full(int(made.sum()) * width, NONE),
    )
    is_read = made & ~series.is_unmapped
    return events, np.where(is_read, used.read_back(recorded[:, -1]), np.nan)


def _near(item: Measurement, values: Floats, rng: np.random.Generator) -> Floats:
    """Return other readings of the same patient, by about a third of the usual spread apart."""
    apart = 0.3 * item.spread * rng.normal(size=values.shape)
    moved = values * np.exp(apart) if item.is_log else values + apart
    near: Floats = np.clip(moved, item.low, item.high)
    return near.round(item.units[item.unit].decimals)


def _rounded(values: Floats, decimals: Whole) -> Floats:
    """Return values to each row's own number of decimals."""
    found = values.copy()
    for number in np.unique(decimals):
        rows = decimals == number
        found[rows] = np.round(values[rows], int(number))
    return found


def _missing(
    history: History, item: Measurement, patient: Whole, severity: Floats, where: str
) -> Flags:
    """Return where a measurement is not made, [rows]."""
    lot = history.stream(f"missing {item.name} {where}").random((2, len(patient)))
    dial = history.hospital.missing.get(item.name)
    if dial is None or dial.share == 0:
        found = np.zeros(len(patient), bool)
    else:
        log_odds = np.log(dial.share / (1 - dial.share)) - dial.informative * severity
        found = lot[0] < probability(log_odds)
    kept_share = np.ones(len(patient))
    for disparity in history.hospital.disparities:
        is_in = history.patients.among(disparity)[patient]
        kept_share = np.where(is_in, kept_share * (1 - disparity.missing), kept_share)
    return np.asarray(found | (lot[1] >= kept_share))


def _codes(history: History, item: Measurement, usual: Whole, series: _Series) -> Whole:
    """Return under which code each row is recorded."""
    coding = history.hospital.coding
    if coding.local_codes:
        code = np.full(len(usual), PLACES[item.name, LOCAL, item.local_code])
    elif chosen := coding.loinc.get(item.name):
        weights = np.array(list(chosen.values()))
        lot = history.stream(f"code of {item.name} {series.where}").random(len(usual))
        place = np.searchsorted(np.cumsum(weights)[:-1] / weights.sum(), lot, side="right")
        code = np.array([PLACES[item.name, "LOINC", loinc] for loinc in chosen])[place]
    else:
        code = usual
    return np.where(series.is_unmapped, PLACES[item.name, LOCAL, unmapped_code(item)], code)


def _diagnosed(history: History) -> Flags:
    """Return which conditions of a patient are ever coded."""
    has = history.patients.conditions
    coded_share = np.full(len(has), 1 - history.hospital.coding.diagnoses_unrecorded)
    for disparity in history.hospital.disparities:
        is_in = history.patients.among(disparity)
        coded_share = np.where(
            is_in, coded_share * (1 - disparity.diagnoses_unrecorded), coded_share
        )
    lot = history.stream("diagnoses").random(has.shape)
    return np.asarray(has & (lot < coded_share[:, None]))


def _diagnoses(history: History, contacts: Contacts, diagnosed: Flags) -> Events:
    stays, clinic = history.stays, contacts.clinic
    lot = history.stream("diagnoses at the clinic").random((len(clinic), len(CONDITIONS)))
    parts = []
    for place, item in enumerate(CONDITIONS):
        in_stay = diagnosed[stays.patient, place]
        there = diagnosed[clinic.patient, place] & (lot[:, place] < 0.5)
        patient = np.concatenate([stays.patient[in_stay], clinic.patient[there]])
        begun_s = np.concatenate([stays.admitted_s[in_stay], clinic.time_s[there]])
        time_s = begun_s + np.repeat([_DIAGNOSED_AFTER_S, 900], [in_stay.sum(), there.sum()])
        coding = history.hospital.coding
        code = np.full(len(patient), _diagnosis(history.hospital, item.name, coding.diagnoses))
        if coding.diagnoses_before is not None and coding.changed_on is not None:
            earlier = _diagnosis(history.hospital, item.name, coding.diagnoses_before)
            code = np.where(begun_s < seconds(coding.changed_on), earlier, code)
        parts.append(_coded(patient, time_s, code))
    return _in_order(parts)


def _diagnosis(hospital: Hospital, name: str, vocabulary: str) -> int:
    code = next(item for item in CONDITIONS if item.name == name).codes[vocabulary]
    is_plain = vocabulary == "SNOMED" or hospital.coding.icd_dots
    return PLACES[name, vocabulary, code if is_plain else without_dot(code)]


def _drugs(history: History) -> Events:
    stays, vocabulary = history.stays, history.hospital.coding.drugs
    parts = []
    for place, item in enumerate(DRUGS):
        takes = history.patients.drugs[stays.patient, place]
        patient = stays.patient[takes]
        code = np.full(len(patient), PLACES[item.name, vocabulary, item.codes[vocabulary]])
        parts.append(_coded(patient, stays.admitted_s[takes] + _GIVEN_AFTER_S, code))
    return _in_order(parts)


def _smoking(history: History, contacts: Contacts) -> Events:
    stays, clinic = history.stays, contacts.clinic
    patient = np.concatenate([stays.patient, clinic.patient])
    time_s = np.concatenate([stays.admitted_s + _ASKED_AFTER_S, clinic.time_s + 300])
    code = np.full(len(patient), PLACES["tobacco_smoking", "LOINC", SMOKING_CODE])
    return _coded(patient, time_s, code, history.patients.smoking[patient])


def _deaths(history: History) -> Whole:
    """Return each patient's death as the data have it when they are taken."""
    stays, hospital = history.stays, history.hospital
    died = np.full(len(history.patients), NONE)
    is_last = stays.died_s >= 0
    died[stays.patient[is_last]] = stays.died_s[is_last]
    delay = history.stream("label delay").exponential(size=len(died)) * hospital.label_delay_days
    entered = died + np.asarray(delay * DAY_S, dtype=np.int64)
    is_entered = (died >= 0) & (entered < seconds(hospital.taken_on) + DAY_S)
    return np.where(is_entered, died, NONE)
