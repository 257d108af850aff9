"""Local DP-SGD: Poisson-sampled patients, exact clipped sums, noise, a step; state kept by study.

Patients stand in random slots (`slots`) and are sampled from cryptographic randomness, as the noise
is. The denominator is the public expected batch size, never the realised one. An empty batch is a
step like any other: it releases noise. Momentum and moments are functions of noised sums only, so
keeping them from round to round costs no privacy; a restart of the agent begins them anew, and a
round that is made again after its release failed begins where it first began (`round_start`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from common.ids import Digest
from common.models import build_model, load_parameters, read_parameters
from common.protocol.arrays import Parameters, l2_norm
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from site_client.features.matrix import FeatureMatrix
from site_client.training.block_sums import EVEN
from site_client.training.clipped_sum import (
    Batch,
    ChooseClippedSum,
    WriteClippedSum,
    choose_clipped_sum,
)
from site_client.training.clipping import Clipping
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.flat_parameters import FlatParameters
from site_client.training.inner_optimizer import NoiseCorrectedAdam, make_inner_optimizer
from site_client.training.randomness import Randomness
from site_client.training.round_start import OptimizerMemory, RoundStart
from site_client.training.slots import draw, fill_up, seat, slot_count, with_nobody
from site_client.training.workspace import Workspace

if TYPE_CHECKING:
    from site_client.training.noisy_optimizer import NoisyOptimizer

STUDIES_KEPT_MAX: Final = 8
ROWS_AT_ONCE: Final = 2048
"""Patients of one piece of a batch: activations stay in bounds."""
GROUPS_AT_ONCE: Final = 320
"""The same where a patient has many numbers: above what a common batch of 256 draws, with few more
that a core's cache does not hold."""
FEW_NUMBERS: Final = 256
"""A patient's, in one row."""
_NORM_MARGIN: Final = 1e-6


@dataclass(frozen=True)
class _StudyState:
    """A study's model and optimiser, which live from its first round to its last."""

    model: nn.Module
    flat: FlatParameters
    inner: torch.optim.Optimizer
    start: RoundStart
    workspace: Workspace
    write_sum: WriteClippedSum


class DpSgdEngine:
    """Trains rounds; see `TrainingEngine`.

    Args:
        choose_sum: how a model's clipped sum is computed; only the privacy audit passes another,
            which watches each batch and its sum.
    """

    def __init__(self, *, choose_sum: ChooseClippedSum = choose_clipped_sum) -> None:
        self._choose_sum = choose_sum
        self._studies: OrderedDict[Digest, _StudyState] = OrderedDict()

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return one round's update and its mechanism record; see `TrainingEngine`."""
        # Imported here: Opacus takes a second to load, and a batched simulation never comes here.
        from site_client.training.noisy_optimizer import NoisyOptimizer

        training, mechanism = task.plan.training, task.mechanism
        state = self._state(task)
        load_parameters(state.model, base)
        if isinstance(state.inner, NoiseCorrectedAdam):
            # Of this site: in a simulation many sites of other sizes take turns with one engine.
            state.inner.noise_deviation = noise_deviation(task)
        state.start.begin(base)
        optimizer = NoisyOptimizer(
            state.inner,
            flat=state.flat,
            noise=randomness.noise,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=task.plan.privacy.clipping_norm,
            expected_batch_size=expected_batch_size(task),
        )
        if training.proximal_term > 0:
            optimizer.attach_step_hook(_pull_back(state.flat, training.proximal_term))
        whole = with_nobody(training_batch(patients, task.plan, state.workspace))
        slots = slot_count(len(patients.y), expected_patients(task))
        seats = seat(len(patients.y), slots, randomness.sampling)
        with np.errstate(all="ignore"):  # what a hostile model makes overflow has no share
            for _ in range(mechanism.steps):
                drawn = draw(slots, mechanism.sampling_probability, randomness.sampling)
                rows = fill_up(seats[drawn], nobody=len(patients.y))
                write_total(whole, rows, state.write_sum, state.flat)
                optimizer.step()
        update = _difference(read_parameters(state.model), base)
        return TrainedUpdate(update=project(update, training.update_norm_max), mechanism=mechanism)

    def memory(self, task: TrainingTask) -> OptimizerMemory:
        """Return what the study's next round needs of the rounds before."""
        return self._state(task).start.memory()

    def recall(self, task: TrainingTask, memory: OptimizerMemory | None) -> None:
        """Put the task's study where `memory` was taken; None begins it anew."""
        self._state(task).start.recall(memory)

    def _state(self, task: TrainingTask) -> _StudyState:
        digest = plan_digest(task.plan)
        state = self._studies.pop(digest, None) or _begin(task, self._choose_sum)
        self._studies[digest] = state
        while len(self._studies) > STUDIES_KEPT_MAX:
            self._studies.popitem(last=False)
        return state


def training_batch(
    patients: FeatureMatrix, plan: StudyPlan, workspace: Workspace | None = None
) -> Batch:
    """Return all training patients as tensors, with the plan's class weight in their losses.

    Args:
        patients: those who train.
        plan: of the study.
        workspace: where each step's patients are gathered.
    """
    y = torch.from_numpy(patients.y)
    weight = torch.where(y > 0, plan.training.positive_class_weight, 1.0).to(y.dtype)
    if patients.weight is not None:
        weight *= torch.from_numpy(patients.weight)
    return Batch(torch.from_numpy(patients.x), y, weight, workspace)


def write_total(
    whole: Batch,
    rows: npt.NDArray[np.int64],
    write_sum: WriteClippedSum,
    flat: FlatParameters,
) -> None:
    """Write the clipped sum over rows, in pieces, into `flat.total`.

    Args:
        whole: all patients, and nobody.
        rows: of the step, in the order in which they stand.
        write_sum: the clipped sum of a piece.
        flat: whose `gradient` it writes.
    """
    has_few = whole.x.dim() == 2 and whole.x.shape[1] <= FEW_NUMBERS
    at_once = ROWS_AT_ONCE if has_few else GROUPS_AT_ONCE
    # About one size: what a piece costs at least, a small last one would cost too.
    pieces = max(1, -(-len(rows) // at_once))
    size = max(EVEN, -(-len(rows) // (pieces * EVEN)) * EVEN)
    flat.total.zero_()
    for start in range(0, len(rows), size):
        write_sum(whole.of(torch.from_numpy(rows[start : start + size])))
        flat.total += flat.gradient


def expected_patients(task: TrainingTask) -> float:
    """Return the public number of patients who train."""
    return task.declared_cohort_size * task.plan.evaluation.training_fraction


def expected_batch_size(task: TrainingTask) -> float:
    """Return the public denominator: sampling probability times declared training patients."""
    return max(1.0, task.mechanism.sampling_probability * expected_patients(task))


def noise_deviation(task: TrainingTask) -> float:
    """Return the standard deviation of the noise in a step's scaled gradient."""
    clipping_norm = task.plan.privacy.clipping_norm
    return task.mechanism.noise_multiplier * clipping_norm / expected_batch_size(task)


def project(update: Parameters, norm_max: float) -> Parameters:
    """Return the update scaled into the plan's norm bound: post-processing, costs no privacy."""
    norm = l2_norm(update)
    if norm <= norm_max:
        return update
    scale = norm_max / norm * (1 - _NORM_MARGIN)
    return {name: (array * np.float32(scale)).astype(np.float32) for name, array in update.items()}


def _begin(task: TrainingTask, choose_sum: ChooseClippedSum) -> _StudyState:
    plan, privacy = task.plan, task.plan.privacy
    model = build_model(plan)
    flat = FlatParameters(model)
    inner = make_inner_optimizer(
        plan.training.optimizer, flat, noise_deviation=noise_deviation(task)
    )
    return _StudyState(
        model=model,
        flat=flat,
        inner=inner,
        start=RoundStart(inner, flat.vector),
        workspace=Workspace(),
        write_sum=choose_sum(model, Clipping(privacy.clipping_norm, privacy.clipping)),
    )


def _pull_back(flat: FlatParameters, strength: float) -> Callable[[NoisyOptimizer], None]:
    """FedProx: add strength * (p - received p) to the noised gradient (Li et al. 2020, eq. 2)."""
    received = flat.vector.detach().clone()

    def hook(_: NoisyOptimizer) -> None:
        flat.gradient.add_(flat.vector.data - received, alpha=strength)

    return hook


def _difference(after: Parameters, before: Parameters) -> Parameters:
    return {name: (after[name] - before[name]).astype(np.float32) for name in before}
