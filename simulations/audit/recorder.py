"""Watches each step of the real engine: the batch, its clipped sum, and what the optimiser gets.

Two places are enough. A wrapper around the clipped sum sees every batch before any noise, and puts
the canaries' gradients in. torch's public hook before an optimiser's step sees the noised sum. All
between (sampling, noise, scaling) and all after (momentum, moments, projection) is the product's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from common.models import load_parameters, read_parameters
from common.protocol.arrays import Parameters
from simulations.audit.canaries import Canaries, log_likelihood_ratio, part_canaries
from simulations.audit.evidence import Block
from site_client.training.clipped_sum import Batch, ChooseClippedSum, WriteClippedSum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import expected_batch_size, project
from site_client.training.engine import TrainingTask
from site_client.training.flat_parameters import FlatParameters, gradient_of
from site_client.training.inner_optimizer import make_inner_optimizer
from site_client.training.noise import SENSITIVITY_MARGIN

COORDINATES_KEPT_MAX: Final = 512
"""Noise is kept at so many coordinates, evenly spread; sums of squares are taken over all."""
STEPS_KEPT_MAX: Final = 1024
"""Noise is kept for so many steps, the same number of the first ones in each round."""


class Recorder:
    """One shadow study's evidence, gathered step by step.

    Args:
        choose_sum: the clipped sum under audit.
        canaries: of this study.
        rounds: how many will run.
    """

    def __init__(self, choose_sum: ChooseClippedSum, canaries: Canaries, *, rounds: int) -> None:
        self._choose_sum = choose_sum
        self._canaries = canaries
        self._rounds = rounds
        self._model: nn.Module | None = None
        self._replay: _Replay | None = None
        self._included = np.flatnonzero(canaries.is_included)
        self._known: npt.NDArray[np.float64] = np.zeros(0)
        self._present = np.zeros(len(canaries.coordinate), dtype=np.int64)
        self._batch_size = 0
        self._ends: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._names: list[str] = []
        self._totals: npt.NDArray[np.float64] = np.zeros(0)
        self._squares: npt.NDArray[np.float64] = np.zeros(0)
        self.scores = np.zeros(len(canaries.coordinate))
        self.noise: list[npt.NDArray[np.float64]] = []
        self.noise_rounds: list[int] = []
        self.batch_sizes: list[int] = []
        self.inclusions: list[npt.NDArray[np.int8]] = []
        self.noised_steps: list[int] = []
        self.update_errors: list[float] = []
        self.share_max = 0.0

    def choose(self, model: nn.Module, clipping: Clipping) -> WriteClippedSum:
        """Return the model's clipped sum under audit, watched; see `ChooseClippedSum`."""
        write_sum = self._choose_sum(model, clipping)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        trainable = [parameter for _, parameter in named]
        if self._model is None:
            self._names = [name for name, _ in named]
            self._ends = np.cumsum([parameter.numel() for parameter in trainable])
            self._known = np.zeros(int(self._ends[-1]))
            self._totals, self._squares = np.zeros(len(named)), np.zeros(len(named))
        self._model = model

        def watched(batch: Batch) -> None:
            patients, present = part_canaries(batch)
            write_sum(patients)
            known = _flat_gradient(trainable)
            self._known += known
            self._batch_size += int((batch.weight > 0).sum())  # without empty slots
            np.add.at(self._present, present, 1)
            shares = max(1, len(patients.y)) * clipping.norm
            self.share_max = max(self.share_max, float(np.linalg.norm(known)) / shares)
            self._add_canaries(trainable, present, clipping.norm)

        return watched

    def _add_canaries(
        self, trainable: list[nn.Parameter], present: npt.NDArray[np.int64], norm: float
    ) -> None:
        coordinates = self._canaries.coordinate[present]
        layers = np.searchsorted(self._ends, coordinates, side="right")
        for layer in np.unique(layers):
            parameter = trainable[int(layer)]
            inside = coordinates[layers == layer] - (self._ends[layer] - parameter.numel())
            place = gradient_of(parameter).view(-1)
            place.index_add_(0, torch.from_numpy(inside), place.new_full((len(inside),), norm))

    @contextmanager
    def round(
        self, task: TrainingTask, base: Parameters, *, is_again: bool = False
    ) -> Iterator[None]:
        """Watch the optimiser's steps of one round.

        Args:
            task: of the round.
            base: the received model.
            is_again: whether the round before was this one, and its release failed.
        """
        self.noised_steps.append(0)
        self._forget_batch()

        def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            vector = optimizer.param_groups[0]["params"][0]
            if self._model is None or vector.data_ptr() != _first(self._model).data_ptr():
                return  # another optimiser's step, such as the replay's
            if self._replay is None:
                self._replay = _Replay(self._model, task)
            if self.noised_steps[-1] == 0:
                self._replay.begin(base, is_again=is_again)
            self._note(vector, task, base)
            self._replay.step(vector.grad)

        handle = register_optimizer_step_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def note_update(self, task: TrainingTask, base: Parameters, update: Parameters) -> None:
        """Compare a released update with what the noised sums alone give."""
        if self._replay is None or self.noised_steps[-1] == 0:
            self.update_errors.append(float("inf"))
            return
        expected = project(self._replay.change(base), task.plan.training.update_norm_max)
        apart = sum(float(np.square(update[name] - expected[name]).sum()) for name in base)
        scale = sum(float(np.square(expected[name]).sum()) for name in base)
        self.update_errors.append((apart / max(scale, 1e-30)) ** 0.5)

    def blocks(self) -> tuple[Block, ...]:
        """Return the noise by parameter tensor."""
        steps = sum(self.noised_steps)
        sizes = np.diff(self._ends, prepend=0)
        return tuple(
            Block(name, int(size) * steps, float(total), float(squares))
            for name, size, total, squares in zip(
                self._names, sizes, self._totals, self._squares, strict=True
            )
        )

    def _note(self, vector: torch.Tensor, task: TrainingTask, base: Parameters) -> None:
        mechanism, norm = task.mechanism, task.plan.privacy.clipping_norm
        gradient = _as_float64(vector.grad)
        pull = task.plan.training.proximal_term
        if pull > 0:  # FedProx acts after the noise and knows nothing of patients
            received = np.concatenate([base[name].ravel() for name in self._names])
            gradient -= pull * (_as_float64(vector) - received)
        observed = (gradient * expected_batch_size(task) - self._known) / norm
        canaries = self._canaries
        self.scores += log_likelihood_ratio(
            observed[canaries.coordinate],
            noise_multiplier=mechanism.noise_multiplier,
            sampling_probability=mechanism.sampling_probability,
        )
        observed[canaries.coordinate] -= self._present
        noise = observed / (mechanism.noise_multiplier * (1 + SENSITIVITY_MARGIN))
        starts = np.append(0, self._ends[:-1])
        self._totals += np.add.reduceat(noise, starts)
        self._squares += np.add.reduceat(noise * noise, starts)
        if self.noised_steps[-1] < max(1, STEPS_KEPT_MAX // self._rounds):
            spread = -(-len(noise) // COORDINATES_KEPT_MAX)
            self.noise.append(noise[::spread].copy())
            self.noise_rounds.append(len(self.noised_steps))
        self.batch_sizes.append(self._batch_size)
        self.inclusions.append(np.minimum(self._present[self._included], 127).astype(np.int8))
        self.noised_steps[-1] += 1
        self._forget_batch()

    def _forget_batch(self) -> None:
        self._known[:] = 0
        self._present[:] = 0
        self._batch_size = 0


class _Replay:
    """The plan's optimiser on the noised sums alone, which is all that an update may depend on."""

    def __init__(self, model: nn.Module, task: TrainingTask) -> None:
        self._model = copy.deepcopy(model)
        self._flat = FlatParameters(self._model)
        plan = task.plan
        deviation = (
            task.mechanism.noise_multiplier * plan.privacy.clipping_norm / expected_batch_size(task)
        )
        self._inner = make_inner_optimizer(
            plan.training.optimizer, self._flat, noise_deviation=deviation
        )
        self._kept: dict[str, Any] = {}

    def begin(self, base: Parameters, *, is_again: bool) -> None:
        """Start a round from the received model, or the last one again as it started then."""
        load_parameters(self._model, base)
        if is_again:
            self._inner.state[self._flat.vector] = copy.deepcopy(self._kept)
        else:
            self._kept = copy.deepcopy(dict(self._inner.state[self._flat.vector]))

    def step(self, gradient: torch.Tensor) -> None:
        """Take one step of a noised gradient."""
        self._flat.gradient.copy_(gradient)
        self._inner.step()

    def change(self, base: Parameters) -> Parameters:
        """Return the model minus the received one."""
        after = read_parameters(self._model)
        return {name: (after[name] - base[name]).astype(np.float32) for name in base}


def _flat_gradient(trainable: list[nn.Parameter]) -> npt.NDArray[np.float64]:
    return np.concatenate([_as_float64(gradient_of(parameter)).ravel() for parameter in trainable])


def _as_float64(values: torch.Tensor | None) -> npt.NDArray[np.float64]:
    if values is None:
        return np.zeros(0)
    return values.detach().numpy().astype(np.float64)


def _first(model: nn.Module) -> torch.Tensor:
    return next(parameter for parameter in model.parameters() if parameter.requires_grad)
