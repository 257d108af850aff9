"""Direct tests of the clipped sum: one patient's share, for hostile models and extreme patients.

The reference is each patient's gradient by autograd in float64, clipped over the whole parameter
vector: slow and obvious.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from common.models import build_model, load_parameters
from common.study.columns import initial_parameters
from common.study.plan import StudyPlan
from simulations.audit.evidence import StudyEvidence
from simulations.audit.patients import generate_patients
from simulations.audit.report import Check
from site_client.training.clipped_sum import Batch, ChooseClippedSum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import training_batch
from site_client.training.flat_parameters import FlatParameters

NORM_MARGIN: Final = 1e-5
"""The engine adds so much more noise, for float32 rounding."""
SCALES: Final = (0.0, 1.0, 10.0, 1e3, 1e5)
"""Standard deviations of a hostile model's parameters, times the square root of a layer's width; 0
is the plan's first model."""
EXACT_SCALE_MAX: Final = 1.0
"""Beyond it float32 and float64 part ways in deep models, and only the norm bound has a meaning."""
EXACT_TOLERANCE: Final = 1e-3
GENERATED: Final = 12


@dataclass(frozen=True)
class _Worst:
    """The worst share found; in clipping norms."""

    norm: float = 0.0
    error: float = 0.0
    place: str = ""


def check_contributions(
    plan: StudyPlan, choose_sum: ChooseClippedSum, rng: np.random.Generator
) -> tuple[Check, Check, Check]:
    """Check every patient's share: its norm, its gradient, and that shares add up.

    Args:
        plan: model, clipping, class weight.
        choose_sum: under audit.
        rng: of the simulation.
    """
    clipping = Clipping(plan.privacy.clipping_norm, plan.privacy.clipping)
    batch = _extreme_patients(plan, rng)
    worst, coupled = _Worst(), 0.0
    for scale in SCALES:
        model = _hostile_model(plan, scale, rng)
        flat = FlatParameters(model)
        write_sum = choose_sum(model, clipping)
        exact = copy.deepcopy(model).double()
        shares = []
        for number in range(len(batch.y)):
            one = batch.of(torch.tensor([number]))
            write_sum(one)
            share = flat.gradient.double().numpy() / clipping.norm
            shares.append(share)
            size = float(np.linalg.norm(share))
            if not size <= worst.norm:
                worst = _Worst(size, worst.error, worst.place)
            if scale <= EXACT_SCALE_MAX:
                worst = _compare(worst, model, share, _exact_share(exact, one, clipping))
        if scale <= EXACT_SCALE_MAX:
            write_sum(batch)
            apart = flat.gradient.double().numpy() / clipping.norm - np.sum(shares, axis=0)
            coupled = max(coupled, float(np.linalg.norm(apart)) / len(batch.y))
    return _share_checks(worst, coupled)


def check_batches(studies: Sequence[StudyEvidence]) -> Check:
    """Check in the shadow studies that no batch's sum is larger than its patients allow."""
    share = max((study.share_max for study in studies), default=0.0)
    return Check(
        "contribution-batches",
        share <= 1 + NORM_MARGIN,
        f"{share:.6f} clipping norms a patient, at most",
        f"{1 + NORM_MARGIN}",
        "sums that patients move further than the noise covers",
    )


def _share_checks(worst: _Worst, coupled: float) -> tuple[Check, Check, Check]:
    return (
        Check(
            "contribution-norm",
            worst.norm <= 1 + NORM_MARGIN,
            f"{worst.norm:.6f} clipping norms, one patient over the whole parameter vector",
            f"{1 + NORM_MARGIN}",
            "one patient moves the sum further than the noise covers",
        ),
        Check(
            "contribution-gradient",
            worst.error <= EXACT_TOLERANCE,
            f"{worst.error:.2g} clipping norms from the exact clipped gradient{worst.place}",
            f"{EXACT_TOLERANCE}",
            "the sum is not of the clipped gradients, for example one layer is left out of the "
            "norm",
        ),
        Check(
            "contribution-additive",
            coupled <= EXACT_TOLERANCE,
            f"{coupled:.2g} clipping norms a patient between a batch and its patients alone",
            f"{EXACT_TOLERANCE}",
            "a patient's share depends on the other patients of the batch",
        ),
    )


def _compare(
    worst: _Worst,
    model: nn.Module,
    share: npt.NDArray[np.float64],
    exact: npt.NDArray[np.float64],
) -> _Worst:
    for name, start, stop in _layers(model):
        error = float(np.linalg.norm(share[start:stop] - exact[start:stop]))
        if not error <= worst.error:
            worst = _Worst(worst.norm, error, f", in {name}")
    return worst


def _layers(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    start = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, start, start + parameter.numel()
            start += parameter.numel()


def _exact_share(model: nn.Module, one: Batch, clipping: Clipping) -> npt.NDArray[np.float64]:
    """Return one patient's clipped gradient in clipping norms, by autograd in float64."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = nn.functional.binary_cross_entropy_with_logits(
        model(one.x.double()).squeeze(-1),
        one.y.double(),
        weight=one.weight.double(),
        reduction="sum",
    )
    parts = torch.autograd.grad(loss, trainable)
    gradient = torch.cat([part.reshape(-1) for part in parts])
    factor = clipping.factors(gradient.square().sum().reshape(1))
    return np.asarray((gradient * factor / clipping.norm).numpy(), dtype=np.float64)


def _hostile_model(plan: StudyPlan, scale: float, rng: np.random.Generator) -> nn.Module:
    model = build_model(plan)
    first = initial_parameters(plan)
    load_parameters(
        model,
        {
            name: (array + rng.normal(0, scale / array.shape[-1] ** 0.5, array.shape)).astype(
                np.float32
            )
            for name, array in first.items()
        },
    )
    return model


def _extreme_patients(plan: StudyPlan, rng: np.random.Generator) -> Batch:
    """Return generated patients, and the corners of the features' range with either label."""
    patients = training_batch(generate_patients(plan, GENERATED, rng), plan)
    columns = patients.x.shape[1]
    corners = torch.stack(
        [
            torch.ones(columns),
            -torch.ones(columns),
            torch.zeros(columns),
            1.0 - 2.0 * (torch.arange(columns) % 2),
            torch.eye(columns)[0],
        ]
    )
    y = torch.cat([patients.y, torch.zeros(len(corners)), torch.ones(len(corners))])
    weight = torch.where(y > 0, plan.training.positive_class_weight, 1.0).to(y.dtype)
    return Batch(torch.cat([patients.x, corners, corners]), y, weight)
