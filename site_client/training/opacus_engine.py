"""Local DP-SGD with Opacus: per-patient gradients, clipped, summed, noised, stepped.

Opacus' own sample gradients and optimiser do the work; three things are ours. Noise is drawn in
float64 from cryptographic randomness and the noised sum is rounded to a public grid (see
`randomness`; the rounding closes the low-order bits of floating point, Mironov 2012). Patients are
Poisson-sampled from a stream of the same kind. The denominator is the public expected batch size,
never the realised one. An empty batch is a step like any other: it releases noise.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Final

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from common.models import build_model, load_parameters, read_parameters
from common.protocol.arrays import Parameters, l2_norm
from site_client.features.matrix import FeatureMatrix
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.randomness import Randomness

GRID_BITS: Final = 20
"""The grid's step is at most 2^-20 of the noise's standard deviation."""
_NORM_MARGIN: Final = 1e-6


class SecureNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with noise from `Randomness` in float64 on a public grid."""

    def __init__(self, *args: Any, noise: np.random.Generator, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._noise = noise

    def add_noise(self) -> None:
        """Add N(0, (noise_multiplier * clipping norm)^2) to each clipped sum, then round."""
        deviation = self.noise_multiplier * self.max_grad_norm
        step = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS) if deviation > 0 else 0.0
        for parameter in self.params:
            total = parameter.summed_grad.numpy().astype(np.float64)
            if deviation > 0:
                total = total + self._noise.normal(0.0, deviation, size=total.shape)
                total = np.round(total / step) * step
            parameter.grad = torch.from_numpy(total.astype(np.float32)).view_as(parameter)


class OpacusEngine:
    """Stock Opacus sample gradients; any model that Opacus can differentiate per sample."""

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return one round's update and its mechanism record; see `TrainingEngine`."""
        model = build_model(task.plan)
        load_parameters(model, base)
        training, mechanism = task.plan.training, task.mechanism
        samples = GradSampleModule(model, batch_first=True, loss_reduction="sum")
        optimizer = SecureNoiseOptimizer(
            torch.optim.SGD(
                model.parameters(),
                lr=training.learning_rate,
                momentum=training.momentum,
                weight_decay=training.weight_decay,
            ),
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=task.plan.privacy.clipping_norm,
            expected_batch_size=expected_batch_size(task),
            loss_reduction="mean",
            noise=randomness.noise,
        )
        loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
        x, y = torch.from_numpy(patients.x), torch.from_numpy(patients.y)
        for _ in range(mechanism.steps):
            chosen = _sample(len(patients.y), mechanism.sampling_probability, randomness.sampling)
            optimizer.zero_grad(set_to_none=True)
            # Opacus hooks the first layer, whose input needs no gradient: torch warns, rightly,
            # that the hook sees output gradients only, which is all that Opacus uses.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                loss(samples(x[chosen]).squeeze(1), y[chosen]).backward()
            optimizer.step()
        samples.remove_hooks()
        update = _difference(read_parameters(model), base)
        return TrainedUpdate(update=project(update, training.update_norm_max), mechanism=mechanism)


def expected_batch_size(task: TrainingTask) -> float:
    """Return the public denominator: sampling probability times declared training patients."""
    trained = 1.0 - task.plan.evaluation.held_out_fraction
    return max(1.0, task.mechanism.sampling_probability * task.declared_cohort_size * trained)


def project(update: Parameters, norm_max: float) -> Parameters:
    """Return the update scaled into the plan's norm bound: post-processing, costs no privacy."""
    norm = l2_norm(update)
    if norm <= norm_max:
        return update
    scale = norm_max / norm * (1 - _NORM_MARGIN)
    return {name: (array * np.float32(scale)).astype(np.float32) for name, array in update.items()}


def _sample(patients: int, probability: float, stream: np.random.Generator) -> torch.Tensor:
    """Return the indices of a Poisson sample; the same law as one coin a patient."""
    count = int(stream.binomial(patients, probability))
    return torch.from_numpy(stream.choice(patients, size=count, replace=False, shuffle=False))


def _difference(after: Parameters, before: Parameters) -> Parameters:
    return {name: (after[name] - before[name]).astype(np.float32) for name in before}
