"""The same study on one machine: virtual hospitals, the real coordinator and the real site code.

A simulation shows how a study would run and what privacy would cost; it proves nothing about
patients that no generator describes. `import simulations` loads nothing; a name is loaded when it
is first used:

    import simulations
    found = simulations.run("plan.toml", simulations.by_column(data, plan, "hospital"))
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from common.loading import collector_at_rest

if TYPE_CHECKING:
    from simulations.data_set import DataSet
    from simulations.engine import EngineSettings
    from simulations.partition import Partition, by_column, by_label_skew, by_quantity, by_time
    from simulations.populations import Hospital, Population, generate
    from simulations.run import StudyRun, open_run, run
    from simulations.sweep import EarlyStop, Sweep, sweep
    from simulations.sweep_report import write_sweep
    from simulations.virtual_site import VirtualSite

_HOME_OF: Final = {
    "DataSet": "data_set",
    "EarlyStop": "sweep",
    "EngineSettings": "engine",
    "Hospital": "populations",
    "Partition": "partition",
    "Population": "populations",
    "StudyRun": "run",
    "Sweep": "sweep",
    "VirtualSite": "virtual_site",
    "by_column": "partition",
    "by_label_skew": "partition",
    "by_quantity": "partition",
    "by_time": "partition",
    "generate": "populations",
    "open_run": "run",
    "run": "run",
    "sweep": "sweep",
    "write_sweep": "sweep_report",
}

__all__ = [
    "DataSet",
    "EarlyStop",
    "EngineSettings",
    "Hospital",
    "Partition",
    "Population",
    "StudyRun",
    "Sweep",
    "VirtualSite",
    "by_column",
    "by_label_skew",
    "by_quantity",
    "by_time",
    "generate",
    "open_run",
    "run",
    "sweep",
    "write_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collector_at_rest():
        home = importlib.import_module(f"{__name__}.{_HOME_OF[name]}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Where two modules are called as the functions in them, `run` and `sweep`.

    Python sets a module as an attribute of its package when it is imported; `simulations.run` would
    be the function before and the module after.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
