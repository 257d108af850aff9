"""A simulated site's features in a file of its folder, from which any process can open the site."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.errors import StoreError
from common.ids import Digest
from common.study.plan import StudyPlan
from site_client.features.matrix import FeatureMatrix


def write_features(path: Path, matrix: FeatureMatrix) -> None:
    """Write a matrix; raises `StoreError`."""
    arrays = {"x": matrix.x, "y": matrix.y, "part": matrix.part}
    if matrix.weight is not None:
        arrays["weight"] = matrix.weight
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(whole, partial, metadata={"columns": json.dumps(matrix.columns)})
        partial.replace(path)
    except (OSError, SafetensorError):
        raise _unusable(path) from None


def read_features(path: Path) -> FeatureMatrix:
    """Return what `write_features` wrote; raises `StoreError`."""
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            columns = tuple(json.loads(file.metadata()["columns"]))
        return FeatureMatrix(
            columns, arrays["x"], arrays["y"], arrays["part"], arrays.get("weight")
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise _unusable(path) from None


@dataclass(frozen=True)
class StoredFeatures:
    """The `Features` of a simulated site: made before the run, read at each turn.

    Args:
        path: of the file.
    """

    path: Path

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the site's features; raises `StoreError`."""
        return read_features(self.path)


def _unusable(path: Path) -> StoreError:
    return StoreError(
        "a simulated site's features cannot be kept or read",
        expected=f"a readable and writable file {path} as this run wrote it",
        arrived="an error of the file system, or other bytes",
        todo="free disk space; begin the run anew in an empty folder if the file is damaged",
    )
