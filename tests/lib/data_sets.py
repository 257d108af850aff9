"""Public data sets on this machine, which are never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_set(name: str) -> Path:
    """Return a data set's folder; skips the test where the data are absent."""
    folder = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not under $COHORTIUM_DATA")
    return folder
