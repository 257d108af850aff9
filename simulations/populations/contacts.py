"""When a patient is seen: visits to clinic and emergency department, and times of measuring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulations.populations.drift import DAY_S, seconds
from simulations.populations.people import Flags, History, Whole

MINUTE_S: Final = 60
HOUR_S: Final = 3600
_LABORATORY_H: Final = ((1.0, 3.0), (8.0, 11.0), (17.0, 21.0))
_VITALS_H: Final = ((0.5, 2.0), (6.0, 8.0), (12.0, 14.0), (20.0, 23.5))
"""Hours after an admission between which each measuring lies: all within the first day."""
_BEFORE_DAYS: Final = (40, 800)
_AFTER_DAYS: Final = (35, 120)
_CLEAR_DAYS: Final = 31
"""No clinic so shortly before an admission: what it measured is not the stay's last value."""
_FOLLOWED_UP: Final = 0.6
VISIT_CLASSES: Final = ("IP", "ER", "OP")


@dataclass(frozen=True)
class Clinic:
    """Visits to the outpatient clinic.

    Args:
        patient: int64 [visits], place in the block's patients.
        stay: int64 [visits], place of the stay that the visit comes before or after.
        time_s: int64 [visits].
    """

    patient: Whole
    stay: Whole
    time_s: Whole

    def __len__(self) -> int:
        """Number of visits."""
        return len(self.patient)


@dataclass(frozen=True)
class Contacts:
    """When patients are seen.

    Args:
        clinic: see there.
        laboratory_s, vitals_s: int64 [stays, times], when is measured, in order.
        patient, start_s, end_s: int64 [visits], of every class, in order of patient and time.
        visit_class: int64 [visits], place in `VISIT_CLASSES`.
    """

    clinic: Clinic
    laboratory_s: Whole
    vitals_s: Whole
    patient: Whole
    start_s: Whole
    end_s: Whole
    visit_class: Whole


def contacts_of(history: History) -> Contacts:
    """Return when the patients of a block are seen."""
    stays = history.stays
    clinic = _clinic(history)
    in_emergency = stays.emergency_s >= 0
    patient = np.concatenate([stays.patient, stays.patient[in_emergency], clinic.patient])
    start = np.concatenate([stays.admitted_s, stays.emergency_s[in_emergency], clinic.time_s])
    end = np.concatenate(
        [stays.left_s, stays.admitted_s[in_emergency], clinic.time_s + 30 * MINUTE_S]
    )
    numbers = [len(stays), int(in_emergency.sum()), len(clinic)]
    visit_class = np.repeat(np.arange(len(VISIT_CLASSES)), numbers)
    order = np.argsort((patient << 36) + start, kind="stable")
    return Contacts(
        clinic,
        _times(history, _LABORATORY_H, "laboratory times"),
        _times(history, _VITALS_H, "vitals times"),
        patient[order],
        start[order],
        end[order],
        visit_class[order],
    )


def _times(history: History, hours: tuple[tuple[float, float], ...], purpose: str) -> Whole:
    lot = history.stream(purpose).random((len(history.stays), len(hours)))
    low = np.array([item[0] for item in hours])
    high = np.array([item[1] for item in hours])
    minutes = np.asarray((low + lot * (high - low)) * 60, dtype=np.int64)
    return np.asarray(history.stays.admitted_s[:, None] + minutes * MINUTE_S)


def _clinic(history: History) -> Clinic:
    stays = history.stays
    first = np.flatnonzero(stays.ordinal == 1)
    rng = history.stream("clinic before")
    number = 1 + rng.poisson(0.6, len(first))
    before = np.repeat(first, number)
    earlier_s = stays.admitted_s[before] - _days(rng, _BEFORE_DAYS, len(before))
    rng = history.stream("clinic after")
    is_seen = rng.random(len(stays)) < _FOLLOWED_UP
    later_s = stays.left_s + _days(rng, _AFTER_DAYS, len(stays))
    after = np.flatnonzero(is_seen & (stays.died_s < 0) & _is_clear(history, later_s))
    stay = np.concatenate([before, after])
    time_s = np.concatenate([earlier_s, later_s[after]])
    # Two visits at one minute would be one event recorded twice.
    _, unique = np.unique((stays.patient[stay] << 36) + time_s, return_index=True)
    return Clinic(stays.patient[stay][unique], stay[unique], time_s[unique])


def _is_clear(history: History, time_s: Whole) -> Flags:
    """Return which visits are before the data are taken and not close to the next admission."""
    stays = history.stays
    is_followed = np.append(stays.patient[1:] == stays.patient[:-1], False)
    follows_s = np.append(stays.admitted_s[1:], 0)
    is_far = ~is_followed | (time_s < follows_s - _CLEAR_DAYS * DAY_S)
    return np.asarray(is_far & (time_s < seconds(history.hospital.taken_on)))


def _days(rng: np.random.Generator, between: tuple[int, int], size: int) -> Whole:
    minutes = rng.integers(between[0] * 1440, between[1] * 1440, size, dtype=np.int64)
    return np.asarray(minutes * MINUTE_S)
