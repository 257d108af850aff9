"""`import simulations` is light, and its names stay what they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

import simulations

LIGHT = """
import sys, simulations
heavy = {"torch", "pandas", "matplotlib", "numpy", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
assert "run" in dir(simulations)
"""
STAYS = """
import simulations
from simulations.run import StudyRun
from simulations.sweep import Sweep
import simulations.run
import simulations.sweep
assert callable(simulations.run) and callable(simulations.sweep)
assert simulations.run.__module__ == "simulations.run"
assert simulations.StudyRun is StudyRun and simulations.Sweep is Sweep
import pickle
assert pickle.loads(pickle.dumps(simulations.run)) is simulations.run
"""


@pytest.mark.parametrize("program", [LIGHT, STAYS], ids=["light", "stays"])
def test_importing_simulations_loads_nothing_and_its_names_stay_functions(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", simulations.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(simulations, name).__name__ == name


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = simulations.walk  # type: ignore[attr-defined]
