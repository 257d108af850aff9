"""The dials of a generated hospital: how it differs, in which unit, and with what effect."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simulations.populations.variables import (
    MEASUREMENT_NAMES,
    MEASUREMENTS,
    WEIGHTS,
)

FOLLOWED_DAYS: Final = 61
"""From the last day of a stay's beginning to the day on which the data are taken."""
EARLIEST: Final = datetime.date(1990, 1, 1)
LATEST: Final = datetime.date(2100, 1, 1)

Share = Annotated[float, Field(ge=0, le=1)]
LogOdds = Annotated[float, Field(ge=-10, le=10)]
Deviations = Annotated[float, Field(ge=-5, le=5)]
DiagnosisVocabulary = Literal["SNOMED", "ICD10", "ICD10CM", "ICD10GM", "ICD9CM"]
Group = Literal["female", "male", "aged_75_or_more"]


class _Dials(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class CaseMix(_Dials):
    """Who comes.

    Args:
        age_mean_years, age_deviation_years: at the first stay; kept between 18 and 95.
        male_fraction: share of men.
        severity: shift of every stay's severity, in its standard deviations. Sicker patients have
            higher creatinine, heart rate, lower blood pressure and more conditions.
        emergency_fraction: share of stays that begin in the emergency department.
        stays_mean: mean number of stays that begin in the time of the data, if nobody died.
    """

    age_mean_years: Annotated[float, Field(ge=18, le=95)] = 66.0
    age_deviation_years: Annotated[float, Field(ge=0, le=30)] = 14.0
    male_fraction: Share = 0.5
    severity: Deviations = 0.0
    emergency_fraction: Share = 0.5
    stays_mean: Annotated[float, Field(ge=1, le=20)] = 1.6


class Coding(_Dials):
    """In which words.

    Args:
        diagnoses: vocabulary of diagnoses; with `diagnoses_until`, another one before that day.
        diagnoses_before, changed_on: the vocabulary in use until a day.
        icd_dots: whether ICD codes have their dot.
        diagnoses_unrecorded: share of patients' conditions that nobody ever codes.
        drugs: vocabulary of drugs.
        loinc: measurement to LOINC codes with weights; by default the usual code of the unit.
        local_codes: laboratory and vital signs under codes of the hospital, which its map explains.
        unmapped: share of (stay, measurement) recorded under a code that no map explains.
    """

    diagnoses: DiagnosisVocabulary = "SNOMED"
    diagnoses_before: DiagnosisVocabulary | None = None
    changed_on: datetime.date | None = None
    icd_dots: bool = True
    diagnoses_unrecorded: Share = 0.0
    drugs: Literal["RxNorm", "ATC"] = "RxNorm"
    loinc: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    local_codes: bool = False
    unmapped: Share = 0.0

    @field_validator("loinc")
    @classmethod
    def _known(cls, found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for item in MEASUREMENTS:
            known = {code for unit in item.units.values() for code in unit.loinc}
            if unknown := set(found.get(item.name, ())) - known:
                raise ValueError(f"{item.name}: no {sorted(unknown)}, there are {sorted(known)}")
        return found

    @model_validator(mode="after")
    def _both(self) -> Coding:
        if (self.diagnoses_before is None) != (self.changed_on is None):
            raise ValueError("`diagnoses_before` and `changed_on` go together")
        return self


class Missing(_Dials):
    """Of one measurement, in a whole stay.

    Args:
        share: of the stays of severity 0 that do not have it.
        informative: how the log-odds of missing fall for each standard deviation of severity: above
            0 the sicker are measured more.
    """

    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    informative: Deviations = 0.0


class Drift(_Dials):
    """What changes from a day on; several add up.

    Args:
        begins: the day.
        over_days: days until the change is whole, in equal steps; 0: at once.
        age_years: shift of the age of new patients.
        severity: shift of severity, in standard deviations.
        log_odds: shift of everybody's risk (prevalence).
        weights: variable to what its weight in the risk model is multiplied with (concept).
        units: measurement to the unit in which it is recorded from `begins` on, at once.
        units_labelled: whether the records say the new unit; if not, they keep saying the old one.
    """

    begins: datetime.date
    over_days: Annotated[int, Field(ge=0, le=3660)] = 0
    age_years: Annotated[float, Field(ge=-50, le=50)] = 0.0
    severity: Deviations = 0.0
    log_odds: LogOdds = 0.0
    weights: dict[str, Annotated[float, Field(ge=-10, le=10)]] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    units_labelled: bool = True


class Disparity(_Dials):
    """What is different for a group of patients.

    Args:
        group: which; age counts at the first stay.
        missing: further share of (stay, measurement) not recorded.
        diagnoses_unrecorded: further share of conditions that nobody ever codes.
        log_odds: shift of risk that no variable shows.
    """

    group: Group
    missing: Share = 0.0
    diagnoses_unrecorded: Share = 0.0
    log_odds: LogOdds = 0.0


class Hospital(_Dials):
    """One hospital: all dials at rest make it like every other.

    Args:
        site_id: its id in a study.
        patients: how many, each with a stay at least.
        begins, ends: first and last day on which a stay begins.
        log_odds: shift of everybody's risk, seen in no variable.
        units: measurement to the unit in which it is recorded; else the catalogue's.
        missing: measurement to how it is missing.
        label_delay_days: mean time, exponential, from a death until it is entered; what is not yet
            entered when the data are taken, 61 days after `ends`, is not in them.
    """

    site_id: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    patients: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    begins: datetime.date = datetime.date(2021, 1, 1)
    ends: datetime.date = datetime.date(2023, 12, 31)
    case_mix: CaseMix = CaseMix()
    coding: Coding = Coding()
    log_odds: LogOdds = 0.0
    units: dict[str, str] = Field(default_factory=dict)
    missing: dict[str, Missing] = Field(default_factory=dict)
    label_delay_days: Annotated[float, Field(ge=0, le=3660)] = 0.0
    drift: Annotated[tuple[Drift, ...], Field(strict=False)] = ()
    disparities: Annotated[tuple[Disparity, ...], Field(strict=False)] = ()

    @property
    def taken_on(self) -> datetime.date:
        """The day on which the data are taken: every outcome has happened by then."""
        return self.ends + datetime.timedelta(days=FOLLOWED_DAYS)

    @property
    def declared_cohort_size(self) -> int:
        """Public size: the number of patients rounded down to two digits."""
        step: int = 10 ** max(len(str(self.patients)) - 2, 0)
        return self.patients // step * step

    @model_validator(mode="after")
    def _fits(self) -> Hospital:
        if not self.begins <= self.ends:
            raise ValueError("`begins` is after `ends`")
        if self.begins < EARLIEST or self.ends > LATEST:
            raise ValueError(f"`begins` and `ends` are between {EARLIEST} and {LATEST}")
        check_measurements(self.missing, "missing")
        check_measurements(self.coding.loinc, "coding.loinc")
        for units in (self.units, *(drift.units for drift in self.drift)):
            check_units(units)
        for drift in self.drift:
            if unknown := sorted(set(drift.weights) - set(WEIGHTS)):
                raise ValueError(f"drift.weights: no {unknown}, there are {sorted(WEIGHTS)}")
        return self


def check_measurements(named: Iterable[str], place: str) -> None:
    """Raise `ValueError` where a name is no measurement."""
    if unknown := sorted(set(named) - set(MEASUREMENT_NAMES)):
        raise ValueError(f"{place}: no {unknown}, there are {list(MEASUREMENT_NAMES)}")


def check_units(units: Mapping[str, str]) -> None:
    """Raise `ValueError` where a measurement has no such unit."""
    check_measurements(units, "units")
    for item in MEASUREMENTS:
        if item.name in units and units[item.name] not in item.units:
            raise ValueError(f"units.{item.name}: one of {list(item.units)}")
