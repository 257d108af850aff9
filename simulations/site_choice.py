"""From a command's options to virtual sites: a data set divided, or invented patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations import partition
from simulations.data_set import DataSet
from simulations.forecast_population import describe_simulated, simulated_population
from simulations.partition import PATIENTS_MIN, Partition

INDEX_DATE: Final = "index-date"
"""As a column of time: the rows' own index dates."""


def choose_sites(
    plan: StudyPlan,
    *,
    data: Path | None = None,
    by: str | None = None,
    label_skew: float | None = None,
    by_quantity: float | None = None,
    by_time: str | None = None,
    sites: int = 10,
    patients: int = 500,
    patients_min: int = PATIENTS_MIN,
    seed: int = 1,
) -> Partition:
    """Return the sites that a command's options ask for.

    Args:
        plan: whose patients they are.
        data: TOML file with `[source]`; None: patients are invented after the plan's features.
        by: a column, or a CSV file of subject_id,site.
        label_skew: Dirichlet's alpha.
        by_quantity: exponent of the sizes.
        by_time: a column of times, or "index-date".
        sites: how many are cut or invented.
        patients: invented ones of each site.
        patients_min: a part of a data set with fewer is left out.
        seed: of what is drawn.

    Raises:
        ConfigError: no way or several ways to divide a data set, or one without a data set; or the
            data cannot be divided so.
        DataSourceError: the data do not fit the plan.
    """
    ways: dict[str, Callable[[DataSet], Partition]] = {}
    if by is not None:
        column = Path(by) if by.endswith(".csv") else by
        ways["by"] = lambda source: partition.by_column(
            source, plan, column, patients_min=patients_min
        )
    if label_skew is not None:
        ways["label-skew"] = lambda source: partition.by_label_skew(
            source, plan, sites=sites, alpha=label_skew, seed=seed, patients_min=patients_min
        )
    if by_quantity is not None:
        ways["by-quantity"] = lambda source: partition.by_quantity(
            source, plan, sites=sites, exponent=by_quantity, seed=seed, patients_min=patients_min
        )
    if by_time is not None:
        time = None if by_time == INDEX_DATE else by_time
        ways["by-time"] = lambda source: partition.by_time(
            source, plan, column=time, sites=sites, patients_min=patients_min
        )
    if data is None:
        return _invented(plan, list(ways), sites=sites, patients=patients, seed=seed)
    if len(ways) != 1:
        raise ConfigError(
            "the data set cannot be divided",
            expected="exactly one of --by, --label-skew, --by-quantity, --by-time",
            arrived=", ".join(f"--{name}" for name in ways) or "none of them",
            todo="say how patients belong to sites; docs/simulating-a-study.md describes each way",
        )
    source = DataSet.read(data)
    return next(iter(ways.values()))(source)


def _invented(
    plan: StudyPlan, ways: list[str], *, sites: int, patients: int, seed: int
) -> Partition:
    if ways:
        raise ConfigError(
            f"--{ways[0]} is refused",
            expected="--data with it: a data set to be divided",
            arrived="no data set",
            todo=f"name one with --data, or leave out --{ways[0]} for invented patients",
        )
    made = simulated_population(plan, sites=sites, patients=patients)(seed)
    return Partition(tuple(made), f"as invented: {describe_simulated(sites, patients)}")
