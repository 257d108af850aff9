"""Whose a sweep's folder is: a new one, or that of the same plan, which may go on and grow."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from common.errors import ConfigError, PlanError
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from common.study.plan_file import read_plan
from common.study.plan_toml import plan_toml
from simulations.run_folder import RunFolder

RUNS: Final = "runs"
"""The kept runs, in a sweep's folder."""
BASELINES: Final = "baselines"
"""The kept baselines."""
_PLAN: Final = "plan.toml"


def claim_sweep_folder(folder: Path, plan: StudyPlan) -> None:
    """Make a folder this sweep's, or find it so; it then holds the plan that is varied.

    Other values, seeds or sites of the same plan may come into the same folder.

    Raises:
        ConfigError: it holds something else, such as a run or the sweep of another plan.
        StoreError: it cannot be written.
    """
    file = folder / _PLAN
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        # The examples keep their data in the sweep's folder before it begins.
        others = [] if not folder.is_dir() else [path.name for path in folder.iterdir()]
        if others != ["data"] and not ((folder / RUNS).is_dir() and _is_of(file, plan)):
            raise ConfigError(
                f"{folder} holds something else",
                expected="a folder that is not there yet, or the one of a sweep of this plan",
                arrived="a folder without such a sweep, or a file",
                todo="name another folder; what is there is never overwritten",
            )
    home = RunFolder(folder)
    if not file.exists():
        home.write_text(_PLAN, plan_toml(plan))


def _is_of(file: Path, plan: StudyPlan) -> bool:
    try:
        return plan_digest(read_plan(file)) == plan_digest(plan)
    except PlanError:
        return False
