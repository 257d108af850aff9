"""What a trainer keeps from round to round, in a file, so that a killed run goes on bit for bit.

It is written before the round's release is logged. A run killed between the two trains the round
again, and the engine then begins where that round first began (`site_client.training.round_start`);
a run killed later finds both.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.errors import StoreError
from common.ids import parse_digest
from common.protocol.arrays import Parameters
from site_client.features.matrix import FeatureMatrix
from site_client.training.engine import TrainedUpdate, TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness
from site_client.training.round_start import OptimizerMemory

_START: Final = "start/"
_NOW: Final = "now/"


@runtime_checkable
class Remembers(Protocol):
    """A `TrainingEngine` that can be put where it was after an earlier round."""

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return the update of one round; see `TrainingEngine`."""
        ...

    def memory(self, task: TrainingTask) -> OptimizerMemory:
        """Return what the study's next round needs of the rounds before."""
        ...

    def recall(self, task: TrainingTask, memory: OptimizerMemory | None) -> None:
        """Put the task's study where `memory` was taken; None begins it anew."""
        ...


class EngineMemory:
    """One site's file; written whole by renaming, which a kill of the process cannot tear.

    Args:
        path: of the file; absent until an optimiser has something to keep.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> OptimizerMemory | None:
        """Return what was written last, or None; raises `StoreError`."""
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                received = parse_digest(file.metadata()["received"])
        except (OSError, SafetensorError, KeyError, TypeError):
            raise _unusable(self._path) from None
        return OptimizerMemory(received, _values(arrays, _START), _values(arrays, _NOW))

    def write(self, memory: OptimizerMemory) -> None:
        """Keep a memory; nothing is written for an optimiser without state."""
        arrays = _arrays(memory.start, _START) | _arrays(memory.now, _NOW)
        if not arrays or memory.received is None:
            return
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            save_file(arrays, partial, metadata={"received": memory.received})
            partial.replace(self._path)
        except (OSError, SafetensorError):
            raise _unusable(self._path) from None


class RememberedEngine:
    """A trainer that many sites take turns with: each site's memory is put in before its round.

    Args:
        engine: trains.
        lock: held while it trains one site.
        memory: of this site.
    """

    def __init__(self, engine: Remembers, lock: threading.Lock, memory: EngineMemory) -> None:
        self._engine = engine
        self._lock = lock
        self._memory = memory

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return the update of one round; see `TrainingEngine`."""
        with self._lock:
            self._engine.recall(task, self._memory.read())
            done = self._engine.train(patients, base, task, randomness)
            self._memory.write(self._engine.memory(task))
        return done


def remembered(
    engine: TrainingEngine, lock: threading.Lock, memory: EngineMemory
) -> TrainingEngine:
    """Return an engine that keeps its memory in a file, or itself where it has none to give."""
    return RememberedEngine(engine, lock, memory) if isinstance(engine, Remembers) else engine


def _arrays(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            found[prefix + name] = value.detach().numpy()
        elif value is not None:
            found[prefix + name] = np.array(value, dtype=np.int64)
    return found


def _values(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): torch.from_numpy(array) if array.ndim else int(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _unusable(path: Path) -> StoreError:
    return StoreError(
        "a simulated site's optimiser state cannot be kept or read",
        expected=f"a readable and writable file {path} as this run wrote it",
        arrived="an error of the file system, or other bytes",
        todo="free disk space; begin the run anew in an empty folder if the file is damaged",
    )
