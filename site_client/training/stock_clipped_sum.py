"""The clipped sum by stock Opacus: a gradient for each patient, for models we do not know."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from opacus import GradSampleModule
from torch import nn

from site_client.training.block_sums import write_weighted
from site_client.training.clipping import Clipping
from site_client.training.flat_parameters import gradient_of

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch


class StockClippedSum:
    """Opacus' sample gradients; it refuses a model that it cannot differentiate per sample.

    Args:
        model: takes x and returns logits [..., 1].
        clipping: the rule.
    """

    def __init__(self, model: nn.Module, clipping: Clipping) -> None:
        self._model = model
        self._clipping = clipping
        self._samples = GradSampleModule(model, batch_first=True, loss_reduction="sum")

    def __call__(self, batch: Batch) -> None:
        """Write the clipped sum; a patient whose gradient is not finite has no share."""
        trainable = {
            name: parameter
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad
        }
        places = {name: gradient_of(parameter) for name, parameter in trainable.items()}
        # Opacus hooks the first layer, whose input needs no gradient: torch warns, rightly, that
        # the hook sees output gradients only, which is all that Opacus uses.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            logits = self._samples(batch.x).squeeze(-1)
            loss = nn.functional.binary_cross_entropy_with_logits(
                logits, batch.y, weight=batch.weight, reduction="sum"
            )
            torch.autograd.backward(loss)
        with torch.no_grad():
            samples = {name: _sample_gradients(item) for name, item in trainable.items()}
            squared = torch.stack(
                [sample.flatten(1).square().sum(1) for sample in samples.values()]
            ).sum(0)
            is_finite = torch.isfinite(squared)
            factors = self._clipping.factors(torch.where(is_finite, squared, 0.0))
            for name, parameter in trainable.items():
                rows = is_finite.view(-1, *(1,) * (samples[name].dim() - 1))
                kept = torch.where(rows, samples[name], 0.0)
                place = places[name]
                write_weighted(kept.flatten(1), factors, into=place.view(-1))
                parameter.grad = place
                parameter.__dict__["grad_sample"] = None


def _sample_gradients(parameter: nn.Parameter) -> torch.Tensor:
    found: torch.Tensor = parameter.__dict__["grad_sample"]  # Opacus' attribute
    return found
