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
from site_client.training.backprops import logit_gradient, tanh_
from site_client.training.layer_terms import LayerTerm, LinearTerm
from site_client.training.workspace import Workspace

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch


class Gates(Protocol):
    """The parameters of `torch.nn.GRU` and Opacus' `DPGRU`."""

    weight_ih_l0: torch.Tensor
    bias_ih_l0: torch.Tensor
    weight_hh_l0: torch.Tensor
    bias_hh_l0: torch.Tensor


@dataclass(frozen=True)
class _Passes:
    """The forward pass of all bins, [bins, sequences, width] each.

    Args:
        before: the state before each bin.
        gates: reset and update, side by side [bins, sequences, 2 * width].
        candidate: the new state before it is mixed with the old one.
        recurrent: the state's part of the candidate before it is reset.
    """

    before: torch.Tensor
    gates: torch.Tensor
    candidate: torch.Tensor
    recurrent: torch.Tensor


@torch.no_grad()
def recurrent_terms(
    model: GatedRecurrentModel, batch: Batch, workspace: Workspace
) -> list[LayerTerm]:
    """Return the terms of a recurrent model whose last state gives the logit.

    Args:
        model: one recurrent layer and a linear layer.
        batch: x is [patients, bins, columns] or [patients, samples, bins, columns].
        workspace: of this model.
    """
    bins, columns = batch.x.shape[-2:]
    x = batch.x.reshape(-1, bins, columns)
    unit = cast("Gates", model.unit)
    passes, state = _forward(unit, x, workspace)
    samples = batch.y.shape
    logits = nn.functional.linear(state, model.outlet.weight, model.outlet.bias)
    outer = logit_gradient(logits.reshape(*samples, 1), batch)
    from_input, from_state = _backward(
        unit, passes, (outer @ model.outlet.weight).reshape(state.shape), workspace
    )
    patients = samples[0]

    def by_patient(values: torch.Tensor, name: str) -> torch.Tensor:
        # The positions of a patient are the bins of all its samples, side by side in memory: the
        # products of whole patients read them more than once.
        sequences = values.transpose(0, 1)
        place = workspace.take(name, *sequences.shape, like=values)
        return place.copy_(sequences).view(patients, -1, values.shape[-1])

    return [
        LinearTerm(
            state.reshape(*samples, state.shape[1]), outer, model.outlet.weight, model.outlet.bias
        ),
        LinearTerm(
            x.reshape(patients, -1, columns),
            by_patient(from_input, "input side"),
            unit.weight_ih_l0,
            unit.bias_ih_l0,
            workspace=workspace,
            name="input gradients",
        ),
        LinearTerm(
            by_patient(passes.before, "states before"),
            by_patient(from_state, "state side"),
            unit.weight_hh_l0,
            unit.bias_hh_l0,
            workspace=workspace,
            name="state gradients",
        ),
    ]


def _forward(unit: Gates, x: torch.Tensor, workspace: Workspace) -> tuple[_Passes, torch.Tensor]:
    sequences, bins, columns = x.shape
    width = unit.weight_hh_l0.shape[1]

    def take(name: str, *shape: int) -> torch.Tensor:
        return workspace.take(name, *shape, like=x)

    flat = take("projected", sequences * bins, 3 * width)
    torch.addmm(unit.bias_ih_l0, x.reshape(-1, columns), unit.weight_ih_l0.t(), out=flat)
    projected = flat.view(sequences, bins, 3 * width).transpose(0, 1)
    from_input, new_input = projected[..., : 2 * width], projected[..., 2 * width :]
    transposed = unit.weight_hh_l0.t()
    before = take("before", bins + 1, sequences, width)
    before[0] = 0
    gates = take("gates", bins, sequences, 2 * width)
    candidate = take("candidate", bins, sequences, width)
    recurrent = take("recurrent", bins, sequences, width)
    at_state = take("at state", sequences, 3 * width)
    steps = zip(
        before[:-1].unbind(0),
        before[1:].unbind(0),
        from_input.unbind(0),
        new_input.unbind(0),
        gates.unbind(0),
        gates[..., :width].unbind(0),
        gates[..., width:].unbind(0),
        candidate.unbind(0),
        recurrent.unbind(0),
        strict=True,
    )
    at_gates, at_new = at_state[:, : 2 * width], at_state[:, 2 * width :]
    for state, after, gates_in, new_in, both, reset, update, new, inside in steps:
        torch.addmm(unit.bias_hh_l0, state, transposed, out=at_state)
        torch.add(gates_in, at_gates, out=both).sigmoid_()
        inside.copy_(at_new)
        tanh_(torch.addcmul(new_in, reset, inside, out=new))
        torch.lerp(new, state, update, out=after)
    return _Passes(before[:-1], gates, candidate, recurrent), before[-1]


def _backward(
    unit: Gates, passes: _Passes, outer: torch.Tensor, workspace: Workspace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients at the gates' input side and state side [bins, sequences, 3 * width]."""
    bins, sequences, width = passes.candidate.shape
    reset, update = passes.gates[..., :width], passes.gates[..., width:]

    def take(name: str, *shape: int) -> torch.Tensor:
        return workspace.take(name, *shape, like=outer)

    from_input = take("from input", bins, sequences, 3 * width)
    from_state = take("from state", bins, sequences, 3 * width)
    # What does not depend on the gradient is computed for all bins at once:
    # new: (1 - n^2) (1 - z); update: (h - n) z (1 - z); reset: r (1 - r) times the recurrent part.
    rest = torch.sub(1.0, update, out=take("rest", bins, sequences, width))
    by_new = take("by new", bins, sequences, width)
    torch.addcmul(outer.new_ones(()), passes.candidate, passes.candidate, value=-1.0, out=by_new)
    by_new.mul_(rest)
    by_update = torch.sub(passes.before, passes.candidate, out=passes.candidate)
    by_update.mul_(update).mul_(rest)
    by_reset = torch.addcmul(reset, reset, reset, value=-1.0, out=rest).mul_(passes.recurrent)
    steps = zip(
        *(
            reversed(values.unbind(0))
            for values in (from_input, from_state, by_new, by_update, by_reset, reset, update)
        ),
        strict=True,
    )
    scaled = take("scaled", sequences, width)
    for inputs, states, new_by, update_by, reset_by, reset_gate, update_gate in steps:
        new = torch.mul(outer, new_by)
        torch.cat([new * reset_by, outer * update_by, new], 1, out=inputs)
        states.copy_(inputs)
        states[:, 2 * width :].mul_(reset_gate)
        torch.mul(outer, update_gate, out=scaled)
        outer = torch.addmm(scaled, states, unit.weight_hh_l0)
    return from_input, from_state
