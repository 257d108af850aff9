"""Hand-written forward and backward passes of the gated recurrent unit: layer terms of a batch.

Gates as in PyTorch and Opacus' DPGRU (reset, update, new), with a bias on each side. The input
projection of all time bins is one matrix product; backpropagation through time goes to the gates'
inputs only, and the weights' patient gradients are sums over time bins, never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from common.models import GatedRecurrentModel
from site_client.training.backprops import logit_gradient
from site_client.training.layer_terms import LayerTerm, LinearTerm

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch


class Gates(Protocol):
    """The parameters of `torch.nn.GRU` and Opacus' `DPGRU`."""

    weight_ih_l0: torch.Tensor
    bias_ih_l0: torch.Tensor
    weight_hh_l0: torch.Tensor
    bias_hh_l0: torch.Tensor


@dataclass(frozen=True)
class _Bin:
    """One time bin's forward pass: the state before it, its gates, and the gated candidate."""

    before: torch.Tensor
    reset: torch.Tensor
    update: torch.Tensor
    candidate: torch.Tensor
    recurrent: torch.Tensor


@torch.no_grad()
def recurrent_terms(model: GatedRecurrentModel, batch: Batch) -> list[LayerTerm]:
    """Return the terms of a recurrent model whose last state gives the logit.

    Args:
        model: one recurrent layer and a linear layer.
        batch: x is [patients, bins, columns] or [patients, samples, bins, columns].
    """
    bins, columns = batch.x.shape[-2:]
    x = batch.x.reshape(-1, bins, columns)
    unit = cast("Gates", model.unit)
    passes, state = _forward(unit, x)
    samples = batch.y.shape
    logits = nn.functional.linear(state, model.outlet.weight, model.outlet.bias)
    outer = logit_gradient(logits.reshape(*samples, 1), batch)
    from_input, from_state = _backward(
        unit, passes, (outer @ model.outlet.weight).reshape(state.shape)
    )
    before = torch.stack([item.before for item in passes], 1)
    patients = samples[0]

    def by_patient(values: torch.Tensor) -> torch.Tensor:
        # The positions of a patient are the bins of all its samples.
        return values.reshape(patients, -1, values.shape[-1])

    return [
        LinearTerm(
            state.reshape(*samples, state.shape[1]), outer, model.outlet.weight, model.outlet.bias
        ),
        LinearTerm(by_patient(x), by_patient(from_input), unit.weight_ih_l0, unit.bias_ih_l0),
        LinearTerm(by_patient(before), by_patient(from_state), unit.weight_hh_l0, unit.bias_hh_l0),
    ]


def _forward(unit: Gates, x: torch.Tensor) -> tuple[list[_Bin], torch.Tensor]:
    sequences, bins, columns = x.shape
    projected = (
        torch.addmm(unit.bias_ih_l0, x.reshape(-1, columns), unit.weight_ih_l0.t())
        .view(sequences, bins, -1)
        .transpose(0, 1)
        .contiguous()
    )
    width = unit.weight_hh_l0.shape[1]
    transposed = unit.weight_hh_l0.t()
    state = x.new_zeros(sequences, width)
    passes = []
    for step in projected:
        recurrent = torch.addmm(unit.bias_hh_l0, state, transposed)
        gates = (step[:, : 2 * width] + recurrent[:, : 2 * width]).sigmoid_()
        reset, update = gates[:, :width], gates[:, width:]
        inside = recurrent[:, 2 * width :]
        candidate = torch.addcmul(step[:, 2 * width :], reset, inside).tanh_()
        passes.append(_Bin(state, reset, update, candidate, inside))
        state = torch.lerp(candidate, state, update)
    return passes, state


def _backward(
    unit: Gates, passes: list[_Bin], outer: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients at the gates' input side and state side [sequences, bins, 3 * width]."""
    sequences, width = outer.shape
    shape = (sequences, len(passes), 3 * width)
    from_input, from_state = outer.new_empty(shape), outer.new_empty(shape)
    for index in range(len(passes) - 1, -1, -1):
        item = passes[index]
        slope = torch.addcmul(outer.new_ones(()), item.candidate, item.candidate, value=-1.0)
        new = outer * (1 - item.update) * slope
        update = outer * (item.before - item.candidate) * item.update * (1 - item.update)
        reset = new * item.recurrent * item.reset * (1 - item.reset)
        inputs, states = from_input[:, index], from_state[:, index]
        torch.cat([reset, update, new], 1, out=inputs)
        torch.cat([reset, update, new * item.reset], 1, out=states)
        outer = torch.addmm(outer * item.update, states, unit.weight_hh_l0)
    return from_input, from_state
