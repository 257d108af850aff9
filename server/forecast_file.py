"""A forecast of a plan's utility, as the simulations write it: read, or asked for, never made here.

The coordinator imports nothing of the simulations: where they are installed they offer themselves
under the entry point `cohortium.forecasts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest

GROUP: Final = "cohortium.forecasts"
_BYTES_MAX: Final = 1 << 20

_Number = Annotated[str, Field(max_length=30, pattern=r"^-?[0-9.e+-]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ForecastLine(_Part):
    """One epsilon's figures; numbers are canonical texts, epsilon may be "infinity"."""

    epsilon: str
    auroc_mean: _Number
    auroc_sd: _Number
    seeds: int


class ForecastRecord(_Part):
    """A forecast, bound to its plan."""

    forecast_version: Literal[1]
    plan_digest: str
    population: Annotated[str, Field(max_length=500)]
    lines: Annotated[tuple[ForecastLine, ...], Field(max_length=100, strict=False)]


def read_forecast(path: Path, plan: StudyPlan) -> ForecastRecord:
    """Return a forecast file's content; raises `ConfigError` unless it is one of this plan."""
    try:
        content = path.read_bytes()
        if len(content) > _BYTES_MAX:
            raise _refuse(path, "a file of more than 1 MiB")
        return check_forecast(json.loads(content), plan)
    except OSError as error:
        raise _refuse(path, error.strerror or "no readable file") from None
    except (ValueError, RecursionError):
        raise _refuse(path, "something else") from None


def check_forecast(record: object, plan: StudyPlan) -> ForecastRecord:
    """Return a checked forecast; raises `ConfigError` when it is another plan's."""
    try:
        found = ForecastRecord.model_validate(record)
    except ValidationError:
        raise _refuse(None, "a record of another form") from None
    if found.plan_digest != plan_digest(plan):
        raise _refuse(None, "a forecast of another plan")
    return found


def make_forecast(
    plan: StudyPlan,
    *,
    sites: int,
    patients: int,
    seeds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ForecastRecord | None:
    """Return a forecast on simulated patients, or None where no simulations are installed.

    Args:
        plan: with calibrated noise.
        sites, patients: simulated hospitals and patients in each.
        seeds: repetitions.
        progress: told how many of how many studies were begun.
    """
    for entry in entry_points(group=GROUP):
        try:
            simulate: Callable[..., dict[str, Any]] = entry.load()
        except ModuleNotFoundError:
            continue
        record = simulate(plan, sites=sites, patients=patients, seeds=seeds, progress=progress)
        return check_forecast(record, plan)
    return None


def _refuse(path: Path | None, arrived: str) -> ConfigError:
    return ConfigError(
        "a forecast is refused" if path is None else f"the forecast {path.name} is refused",
        expected="what `cohortium-sim forecast PLAN --out FILE` wrote for this very plan",
        arrived=arrived,
        todo="make the forecast again",
    )
