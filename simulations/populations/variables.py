"""What the generated patients have: measurements, conditions, drugs, smoking; and the risk model.

Names are entries of the feature catalogue, so that a plan takes them as `creatinine.last`. The
values imitate textbook distributions of adults in hospital and no data set. Risk is logistic and
linear in what a plan over the same entries sees, so that a logistic regression can reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class RecordedUnit:
    """One unit in which a laboratory records: value * factor + offset of the plan's unit.

    Args:
        factor, offset: from the plan's unit to this one, from molar masses (CIAAW atomic weights).
        decimals: to which values are recorded.
        loinc: codes of the catalogue's entry that say this kind of quantity, the usual one first.
    """

    factor: float
    offset: float
    decimals: int
    loinc: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """A number that is measured again and again.

    Args:
        name: entry of the feature catalogue.
        mean: of patients of severity 0, in the plan's unit; the median where `is_log`.
        spread: standard deviation, of the logarithm where `is_log`.
        severity: correlation of the standard score with the severity of the stay.
        low, high: values are kept between; inside the catalogue's clip bounds.
        units: how it may be recorded, the plan's own unit first.
        weight: log-odds of death for each `per` above `centre`.
    """

    name: str
    mean: float
    spread: float
    severity: float
    low: float
    high: float
    units: Mapping[str, RecordedUnit]
    weight: float
    centre: float
    per: float
    is_log: bool = False
    is_vital: bool = False

    @property
    def unit(self) -> str:
        """The plan's own unit."""
        return next(iter(self.units))

    @property
    def local_code(self) -> str:
        """What a laboratory without LOINC calls it."""
        return f"GEN-{self.name.upper().replace('_', '-')}"


@dataclass(frozen=True)
class Condition:
    """A chronic diagnosis.

    Args:
        name: entry of the feature catalogue.
        codes: vocabulary to code, with dots.
        log_odds: of having it at 65 years and severity 0.
        per_decade, per_severity: what age and severity add.
        weight: log-odds of death.
    """

    name: str
    codes: Mapping[str, str]
    log_odds: float
    per_decade: float
    per_severity: float
    weight: float


@dataclass(frozen=True)
class Drug:
    """A drug given in every stay of those who take it.

    Args:
        name: entry of the feature catalogue.
        codes: vocabulary to code.
        share, share_heart_failure: of patients without and with heart failure.
        weight: log-odds of death.
    """

    name: str
    codes: Mapping[str, str]
    share: float
    share_heart_failure: float
    weight: float


_KPA_PER_MMHG: Final = 0.133322

MEASUREMENTS: Final = (
    Measurement(
        "creatinine", 1.0, 0.38, 0.45, 0.3, 10, 
        {
            "mg/dL": RecordedUnit(1, 0, 2, ("2160-0", "38483-4")),
            "umol/L": RecordedUnit(10_000 / 113.12, 0, 1, ("14682-9",)),
        },
        weight=0.75, centre=1.0, per=1.0, is_log=True,
    ),
    Measurement(
        "glucose", 118, 0.28, 0.3, 40, 500,
        {
            "mg/dL": RecordedUnit(1, 0, 0, ("2345-7", "2339-0", "41653-7")),
            "mmol/L": RecordedUnit(10 / 180.156, 0, 2, ("14749-6",)),
        },
        weight=0.18, centre=120, per=50, is_log=True,
    ),
    Measurement(
        "hemoglobin", 12.6, 1.9, -0.35, 5, 20,
        {
            "g/dL": RecordedUnit(1, 0, 1, ("718-7",)),
            "g/L": RecordedUnit(10, 0, 0, ("718-7",)),
            "mmol/L": RecordedUnit(10_000 / 16_114.5, 0, 2, ("718-7",)),
        },
        weight=-0.2, centre=12.5, per=1.0,
    ),
    Measurement(
        "sodium", 138, 4.2, -0.2, 115, 165,
        {
            "mmol/L": RecordedUnit(1, 0, 0, ("2951-2", "2947-0")),
            "meq/L": RecordedUnit(1, 0, 0, ("2951-2", "2947-0")),
        },
        weight=-0.15, centre=138, per=5,
    ),
    Measurement(
        "systolic_bp", 128, 19, -0.4, 70, 220,
        {
            "mm[Hg]": RecordedUnit(1, 0, 0, ("8480-6", "76534-7")),
            "kPa": RecordedUnit(_KPA_PER_MMHG, 0, 1, ("8480-6", "76534-7")),
        },
        weight=-0.4, centre=128, per=20, is_vital=True,
    ),
    Measurement(
        "heart_rate", 86, 16, 0.45, 40, 180,
        {"/min": RecordedUnit(1, 0, 0, ("8867-4",))},
        weight=0.4, centre=85, per=15, is_vital=True,
    ),
    Measurement(
        "temperature", 37.0, 0.6, 0.2, 34, 41,
        {
            "Cel": RecordedUnit(1, 0, 1, ("8310-5", "8331-1")),
            "[degF]": RecordedUnit(1.8, 32, 1, ("8310-5", "8331-1")),
        },
        weight=0.08, centre=37, per=1, is_vital=True,
    ),
)  # fmt: skip

CONDITIONS: Final = (
    Condition(
        "heart_failure",
        {
            "SNOMED": "84114007", "ICD10": "I50.9", "ICD10CM": "I50.9", "ICD10GM": "I50.9",
            "ICD9CM": "428.0",
        },
        -1.5, 0.5, 0.35, weight=0.7,
    ),
    Condition(
        "diabetes",
        {
            "SNOMED": "44054006", "ICD10": "E11.9", "ICD10CM": "E11.9", "ICD10GM": "E11.9",
            "ICD9CM": "250.00",
        },
        -1.0, 0.15, 0.1, weight=0.2,
    ),
    Condition(
        "chronic_pulmonary_disease",
        {
            "SNOMED": "13645005", "ICD10": "J44.9", "ICD10CM": "J44.9", "ICD10GM": "J44.9",
            "ICD9CM": "496",
        },
        -1.6, 0.2, 0.2, weight=0.35,
    ),
)  # fmt: skip

DRUGS: Final = (
    Drug("anticoagulants", {"RxNorm": "11289", "ATC": "B01AA03"}, 0.12, 0.45, weight=-0.25),
    Drug("statins", {"RxNorm": "83367", "ATC": "C10AA05"}, 0.35, 0.6, weight=0.0),
)

SMOKING_CODE: Final = "72166-2"
SMOKING: Final = {
    "every day": "449868002",
    "former": "8517006",
    "never": "266919005",
}
"""Answers in words to SNOMED codes, in the order of the catalogue's levels."""
SMOKING_SHARES: Final = (0.18, 0.34, 0.48)

INTERCEPT: Final = -3.2
"""Log-odds of death of a woman of 65 who never smoked, without a condition, at every centre."""
WEIGHTS: Final[Mapping[str, float]] = {
    "age": 0.6,
    "male": 0.18,
    "tobacco_smoking": 0.4,
    **{item.name: item.weight for item in (*MEASUREMENTS, *CONDITIONS, *DRUGS)},
}
"""Age: each decade over 65; male; who smokes every day; measurements: each `per` over `centre`."""
AGE_CENTRE_YEARS: Final = 65
AGE_YEARS_MIN, AGE_YEARS_MAX = 18, 95

MEASUREMENT_NAMES: Final = tuple(item.name for item in MEASUREMENTS)
CONDITION_NAMES: Final = tuple(item.name for item in CONDITIONS)
DRUG_NAMES: Final = tuple(item.name for item in DRUGS)
