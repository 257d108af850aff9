"""Wrong variants of the real training parts, as such bugs have been made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from common.privacy.accountant import epsilon_of
from common.privacy.calibration import calibrate_training
from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from simulations.audit.shadow import planned_round
from site_client.features.matrix import FeatureMatrix
from site_client.training.clipped_sum import Batch, WriteClippedSum, choose_clipped_sum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.layer_terms import LayerTerm
from site_client.training.noisy_optimizer import NoisyOptimizer
from site_client.training.patient_norms import NormPart, squared_norms
from site_client.training.randomness import Randomness
from site_client.training.slots import draw


class NoiseForAnotherNorm(NoisyOptimizer):
    """A scheduler halved the optimiser's clipping norm five times; the sum is clipped as before."""

    def __init__(self, *args: Any, max_grad_norm: float, **options: Any) -> None:
        super().__init__(*args, max_grad_norm=max_grad_norm / 32, **options)


class EmptyBatchSkipped(NoisyOptimizer):
    """No gradient, no step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure) if bool(self._flat.gradient.any()) else None


class NoiseSeededInEachRound(DpSgdEngine):
    """`seed_everything(...)` at the start of each round: the noise is the first round's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seed = np.random.SeedSequence().entropy

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        noise = np.random.default_rng(self._seed)
        return super().train(patients, base, task, replace(randomness, noise=noise))


class NoRoundStart:
    """A round that is made again goes on where the failed attempt ended."""

    def __init__(self, *_: Any) -> None:
        pass

    def begin(self, base: Parameters) -> None:
        pass


class ForgetfulEngine(DpSgdEngine):
    """A new engine in each round: momentum begins anew, and so does its accountant."""

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        fresh = DpSgdEngine(choose_sum=self._choose_sum)
        return fresh.train(patients, base, task, randomness)


class CleanLeakingEngine(DpSgdEngine):
    """Something that is no noised sum is added to the update."""

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        done = super().train(patients, base, task, randomness)
        mean = np.float32(patients.y.mean() * 1e-2)
        return TrainedUpdate({name: a + mean for name, a in done.update.items()}, done.mechanism)


def calibrated_for_one_round(plan: StudyPlan) -> DpSgdSteps:
    """The whole budget for each round, as an engine's own accountant believes that it has."""
    right = planned_round(plan)
    noise = calibrate_training(
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        sampling_probability=right.sampling_probability,
        steps=right.steps,
    )
    return DpSgdSteps(noise, right.sampling_probability, right.steps, right.part)


def claim_of_the_last_round(plan: StudyPlan, rounds: Sequence[DpSgdSteps]) -> float:
    """What an accountant says that was made in the last round."""
    return epsilon_of(rounds[-1:], delta=plan.privacy.delta)


class _LeftOut:
    """A layer whose gradient is summed but has no share in the norm."""

    def __init__(self, term: LayerTerm) -> None:
        self._term = term

    def norm_parts(self) -> Sequence[NormPart]:
        return [torch.zeros_like(squared_norms(self._term.norm_parts()))]

    def clear(self, rows: torch.Tensor) -> None:
        self._term.clear(rows)

    def write_sum(self, factors: torch.Tensor) -> None:
        self._term.write_sum(factors)


def one_layer_left_out_of_the_norm(model: nn.Module, clipping: Clipping) -> WriteClippedSum:
    """The last layer of the network (the first term of the backward pass) is not clipped."""
    write_sum: Any = choose_clipped_sum(model, clipping)
    right = write_sum._terms

    def terms(batch: Batch) -> list[LayerTerm]:
        first, *rest = right(batch)
        return [_LeftOut(first), *rest]

    write_sum._terms = terms
    return write_sum


def bias_left_out_of_the_norm(model: nn.Module, clipping: Clipping) -> WriteClippedSum:
    """The norm of a linear layer's weight alone."""
    write_sum: Any = choose_clipped_sum(model, clipping)
    right = write_sum._terms

    class WeightOnly(_LeftOut):
        def norm_parts(self) -> Sequence[NormPart]:
            term: Any = self._term
            return [term._outer.square().sum(1) * term._inner.square().sum(1)]

    write_sum._terms = lambda batch: [WeightOnly(term) for term in right(batch)]
    return write_sum


class ShuffledBatches:
    """A shuffled pass through the patients in batches of one size, then another pass."""

    def __init__(self) -> None:
        self._slots = 0
        self._left = np.zeros(0, np.int64)

    def __call__(
        self, slots: int, probability: float, stream: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        size = max(1, round(slots * probability))
        if self._slots != slots or len(self._left) < size:
            self._slots = slots
            self._left = stream.permutation(slots)
        chosen, self._left = self._left[:size], self._left[size:]
        return chosen


def fixed_size_draw(
    slots: int, probability: float, stream: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A random batch whose size never varies."""
    size = max(1, round(slots * probability))
    return stream.choice(slots, size=size, replace=False)


def never_empty_draw(
    slots: int, probability: float, stream: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draws again until somebody is drawn."""
    while True:
        drawn = draw(slots, probability, stream)
        if len(drawn):
            return drawn
