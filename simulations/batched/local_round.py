"""One site's round, made ready to be trained beside others: its rows, coins, noise and state.

What is drawn from the site's sampling stream is drawn here, in the order of `DpSgdEngine`; sampling
and noise are two streams, so it does not matter that all sampling comes before the first noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.canonical import digest_bytes
from common.ids import Digest
from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters
from common.study.columns import parameter_shapes
from common.study.plan_bytes import plan_digest
from simulations.batched.stacked_model import knows
from simulations.batched.stacked_optimizer import State
from site_client.features.matrix import FeatureMatrix
from site_client.training.block_sums import BLOCK
from site_client.training.clipped_sum import Batch
from site_client.training.dp_sgd_engine import expected_patients, project, training_batch
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.randomness import Randomness
from site_client.training.round_start import OptimizerMemory
from site_client.training.slots import draw, fill_up, seat, slot_count, with_nobody

_ROWS: Final = (8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, BLOCK)
"""Few sizes, so that sites of about one size are trained together; BLOCK bounds rounding."""
_DEVIATIONS: Final = 2.5


@dataclass(frozen=True)
class LocalRound:
    """What one site's training of one round reads.

    Args:
        task: plan, mechanism and public size.
        base: the received model.
        vector: float32 [parameters], the same in one row.
        whole: the patients who train, and nobody in the last row.
        steps: of each step, int64 rows of `whole`, a multiple of `EVEN` of them.
        noise: the site's noise stream.
        received: digest of the received model.
        start: the optimiser's state before the round.
        rows_at_once: of a piece of a step; more come in another piece.
    """

    task: TrainingTask
    base: Parameters
    vector: npt.NDArray[np.float32]
    whole: Batch
    steps: tuple[npt.NDArray[np.int64], ...]
    noise: np.random.Generator
    received: Digest
    start: State
    rows_at_once: int

    @property
    def kind(self) -> tuple[Digest, DpSgdSteps]:
        """What rounds that are trained at once have in common."""
        return plan_digest(self.task.plan), self.task.mechanism


@dataclass(frozen=True)
class LocalResult:
    """What one site's training of one round gives.

    Args:
        update: for the gate.
        memory: for the site's next round.
    """

    update: TrainedUpdate
    memory: OptimizerMemory


def pays(patients: FeatureMatrix, task: TrainingTask) -> bool:
    """Return whether a site's round is trained faster stacked, by what was measured.

    A function of the site alone, as its result is. Perceptrons gain up to some 300 rows a step: 8
    to 13 times for a logistic regression, 3 for two hidden layers, 2 for residual blocks of width
    64; at 1,000 rows nothing is left, for the arithmetic is all (docs/benchmarks.md).

    Args:
        patients: those who train.
        task: of the round.
    """
    if not knows(task.plan) or patients.x.ndim != 2:
        return False
    slots = slot_count(len(patients.y), expected_patients(task))
    return slots * task.mechanism.sampling_probability <= BLOCK


def local_round(
    patients: FeatureMatrix,
    base: Parameters,
    task: TrainingTask,
    randomness: Randomness,
    memory: OptimizerMemory | None,
) -> LocalRound:
    """Return a round made ready: the same model received again begins where it first began.

    Args:
        patients, base, task, randomness: as in `TrainingEngine.train`.
        memory: of the site's earlier rounds of this study.
    """
    mechanism = task.mechanism
    received = digest_bytes("round-start", *(array.tobytes() for array in base.values()))
    start: State = {}
    if memory is not None:
        start = memory.start if memory.received == received else memory.now
    slots = slot_count(len(patients.y), expected_patients(task))
    seats = seat(len(patients.y), slots, randomness.sampling)
    steps = tuple(
        fill_up(
            seats[draw(slots, mechanism.sampling_probability, randomness.sampling)],
            nobody=len(patients.y),
        )
        for _ in range(mechanism.steps)
    )
    vector = [np.ravel(base[name]).astype(np.float32) for name in parameter_shapes(task.plan)]
    return LocalRound(
        task=task,
        base=base,
        vector=np.concatenate(vector),
        whole=with_nobody(training_batch(patients, task.plan)),
        steps=steps,
        noise=randomness.noise,
        received=received,
        start=start,
        rows_at_once=_rows_at_once(slots, mechanism.sampling_probability),
    )


def _rows_at_once(slots: int, probability: float) -> int:
    """Return how many rows of a site are trained at once: of almost every step, all.

    It depends on this site alone, so that its model does not depend on who sits beside it: the last
    bits of a matrix product change with the number of its rows.
    """
    mean = slots * probability
    most = mean + _DEVIATIONS * math.sqrt(mean * (1 - probability))
    return next((size for size in _ROWS if size >= most), _ROWS[-1])


def local_result(ready: LocalRound, vector: npt.NDArray[np.float32], now: State) -> LocalResult:
    """Return a trained round's update, within the plan's norm bound, and what is kept of it.

    Args:
        ready: the round.
        vector: float32 [parameters], trained.
        now: the optimiser's state after the last step.
    """
    trained = _named(ready, vector)
    update = {name: (trained[name] - ready.base[name]).astype(np.float32) for name in ready.base}
    bounded = project(update, ready.task.plan.training.update_norm_max)
    return LocalResult(
        TrainedUpdate(update=bounded, mechanism=ready.task.mechanism),
        OptimizerMemory(ready.received, ready.start, now),
    )


def _named(ready: LocalRound, vector: npt.NDArray[np.float32]) -> Parameters:
    found: dict[str, npt.NDArray[np.float32]] = {}
    start = 0
    for name, shape in parameter_shapes(ready.task.plan).items():
        stop = start + int(np.prod(shape))
        found[name] = vector[start:stop].reshape(shape)
        start = stop
    return found
