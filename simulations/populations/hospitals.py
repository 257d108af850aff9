"""Several hospitals: read from a TOML file, or drawn so that they differ as hospitals do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from simulations.populations.hospital import (
    CaseMix,
    Coding,
    DiagnosisVocabulary,
    Disparity,
    Hospital,
    Missing,
)
from simulations.populations.variables import MEASUREMENTS

HOSPITALS_MAX: Final = 10_000
_VOCABULARIES: Final[tuple[DiagnosisVocabulary, ...]] = ("SNOMED", "ICD10", "ICD10CM", "ICD10GM")
_PATIENTS_MIN: Final = 50


class _HospitalsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: dict[str, Any] = Field(default_factory=dict)
    hospitals: list[dict[str, Any]] = Field(min_length=1, max_length=HOSPITALS_MAX)


def read_hospitals(path: Path) -> tuple[Hospital, ...]:
    """Return the hospitals of a TOML file: `[[hospitals]]`, and `[defaults]` for what all share.

    Raises:
        ConfigError: with every problem of the first hospital that has one.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        found = _HospitalsFile.model_validate(document)
        return tuple(
            Hospital.model_validate({**found.defaults, **item}) for item in found.hospitals
        )
    except ValidationError as error:
        arrived = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the hospital'}: {item['msg']}"
            for item in error.errors()
        )
    except OSError as error:
        arrived = error.strerror or type(error).__name__
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        arrived = str(error)
    raise ConfigError(
        f"{path.name} is refused",
        expected="[[hospitals]] with the dials of docs/synthetic-populations.md",
        arrived=arrived,
        todo="correct the file",
    )


def differing_hospitals(number: int, *, seed: int, patients: int = 1000) -> tuple[Hospital, ...]:
    """Return hospitals whose dials are drawn: size, case mix, codes, units and gaps.

    Sizes are log-normal (most are smaller than the mean, a few several times as large). What is
    drawn is in `truth/model.json` of a written population. Drift, delayed labels and disparities
    of risk stay at rest: a study that asks about them sets them.

    Args:
        number: of hospitals, 1 to `HOSPITALS_MAX`.
        seed: of the population.
        patients: mean of a hospital.

    Raises:
        ConfigError: too many or too few hospitals.
    """
    if not 1 <= number <= HOSPITALS_MAX:
        raise ConfigError(
            "the number of hospitals is refused",
            expected=f"1 to {HOSPITALS_MAX:,}",
            arrived=str(number),
            todo="choose another number",
        )
    width = len(str(number))
    rng = np.random.default_rng([seed, number, *b"hospitals"])
    return tuple(
        _drawn(f"hospital-{place:0{width}d}", patients, rng) for place in range(1, number + 1)
    )


def _drawn(site_id: str, patients: int, rng: np.random.Generator) -> Hospital:
    size = int(patients * rng.lognormal(-0.18, 0.6))
    missing, units = {}, {}
    for item in MEASUREMENTS:
        share = float(round(min(rng.exponential(0.06), 0.5), 3))
        missing[item.name] = Missing(share=share, informative=float(round(rng.normal(0.3, 0.2), 2)))
        if len(item.units) > 1 and rng.random() < 0.4:
            units[item.name] = str(rng.choice(list(item.units)[1:]))
    return Hospital(
        site_id=site_id,
        patients=max(size, min(_PATIENTS_MIN, patients)),
        log_odds=float(round(rng.normal(0, 0.25), 2)),
        case_mix=CaseMix(
            age_mean_years=float(round(rng.normal(66, 4), 1)),
            male_fraction=float(round(rng.beta(20, 20), 2)),
            severity=float(round(rng.normal(0, 0.4), 2)),
            emergency_fraction=float(round(rng.beta(6, 6), 2)),
        ),
        coding=Coding(
            diagnoses=_VOCABULARIES[int(rng.integers(len(_VOCABULARIES)))],
            icd_dots=bool(rng.random() < 0.6),
            diagnoses_unrecorded=float(round(rng.beta(2, 30), 3)),
            drugs="RxNorm" if rng.random() < 0.5 else "ATC",
            local_codes=bool(rng.random() < 0.4),
        ),
        units=units,
        missing=missing,
        disparities=(Disparity(group="female", missing=float(round(rng.beta(1, 30), 3))),),
    )
