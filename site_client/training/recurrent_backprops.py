"""Hand-written forward and backward passes of the gated recurrent unit: layer terms of a batch.

Gates as in PyTorch and Opacus' DPGRU (reset r, update z, new n), with a bias on each side. The
input projection of all time bins is one matrix product; backpropagation through time goes to the
gates' inputs only, and the weights' patient gradients are sums over time bins.

What a bin costs is mostly calls, so there are few: a bin's arrays lie side by side in one row of
its sequence, and what does not depend on the state, or on the gradient, is computed for all bins at
once. Nothing is copied from time order to patient order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from common.models import GatedRecurrentModel
from site_client.training.backprops import logit_gradient
from site_client.training.flat_parameters import gradient_of
from site_client.training.layer_terms import LayerTerm, LinearTerm
from site_client.training.products import product
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
    """The forward pass of all bins, [sequences, bins, ...] each.

    Args:
        gates: reset, update and new, side by side [..., 3 * width].
        inside: the state's part of the new gate before it is reset [..., width].
        before: the state before each bin [..., width].
        last: the state after all bins [sequences, width].
    """

    gates: torch.Tensor
    inside: torch.Tensor
    before: torch.Tensor
    last: torch.Tensor


class _RolledTerm(LinearTerm):
    """A linear layer whose outputs stand in another order: the last third first."""

    def __init__(
        self,
        inner: torch.Tensor,
        outer: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        workspace: Workspace,
        name: str,
    ) -> None:
        super().__init__(inner, outer, weight, bias, workspace=workspace, name=name)
        self._rolled = [item for item in (weight, bias) if item.requires_grad]

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums, in the parameters' own order."""
        super().write_sum(factors)
        for parameter in self._rolled:
            gradient = gradient_of(parameter)
            gradient.copy_(gradient.roll(-(len(gradient) // 3), 0))


@torch.inference_mode()
def recurrent_terms(
    model: GatedRecurrentModel, batch: Batch, workspace: Workspace
) -> list[LayerTerm]:
    """Return the terms of a recurrent model whose last state gives the logit.

    Args:
        model: one recurrent layer and a linear layer.
        batch: x is [patients, bins * columns] or [patients, samples, bins * columns].
        workspace: of this model.
    """
    columns = model.columns
    x = batch.x.reshape(-1, model.bins, columns)
    unit = cast("Gates", model.unit)
    passes = _forward(unit, x, workspace)
    state, width = passes.last, passes.last.shape[1]
    samples = batch.y.shape
    logits = nn.functional.linear(state, model.outlet.weight, model.outlet.bias)
    outer = logit_gradient(logits.reshape(*samples, 1), batch)
    gradients = _backward(
        unit, passes, (outer @ model.outlet.weight).reshape(state.shape), workspace
    )
    # The positions of a patient are the bins of all its samples.
    patients = samples[0]
    gradients = gradients.view(patients, -1, gradients.shape[-1])
    return [
        LinearTerm(state.reshape(*samples, width), outer, model.outlet.weight, model.outlet.bias),
        _RolledTerm(
            x.reshape(patients, -1, columns),
            gradients[..., : 3 * width],
            unit.weight_ih_l0,
            unit.bias_ih_l0,
            workspace=workspace,
            name="input gradients",
        ),
        LinearTerm(
            passes.before.view(patients, -1, width),
            gradients[..., width : 4 * width],
            unit.weight_hh_l0,
            unit.bias_hh_l0,
            workspace=workspace,
            name="state gradients",
        ),
    ]


def _forward(unit: Gates, x: torch.Tensor, workspace: Workspace) -> _Passes:
    sequences, bins, columns = x.shape
    width = unit.weight_hh_l0.shape[1]

    def take(name: str, *shape: int) -> torch.Tensor:
        return workspace.take(name, *shape, like=x)

    # tanh(a) is 2 sigmoid(2a) - 1, four times as fast as torch's own; the 2a is in the weights.
    twice = x.new_ones(3 * width, 1)
    twice[2 * width :] = 2.0
    bias = unit.bias_ih_l0 * twice[:, 0]
    bias[: 2 * width] += unit.bias_hh_l0[: 2 * width]
    flat = take("gates", sequences * bins, 3 * width)
    product(x.reshape(-1, columns), (unit.weight_ih_l0 * twice).t(), into=flat).add_(bias)
    gates = flat.view(sequences, bins, 3 * width)
    inside = take("inside", sequences, bins, width)
    # Of one bin, so that it stays in the processor's cache.
    recurrent = take("recurrent", sequences, 3 * width)
    to_both, to_new = recurrent[:, : 2 * width], recurrent[:, 2 * width :]
    from_state, bias_inside = unit.weight_hh_l0.t(), unit.bias_hh_l0[2 * width :]
    before = take("before", sequences, bins, width)
    before[:, 0] = 0.0
    last = take("last", sequences, width)
    states = (*before.unbind(1), last)
    minus_one = x.new_tensor(-1.0)
    steps = zip(
        states[:-1],
        states[1:],
        gates[..., : 2 * width].unbind(1),
        gates[..., :width].unbind(1),
        gates[..., width : 2 * width].unbind(1),
        gates[..., 2 * width :].unbind(1),
        inside.unbind(1),
        strict=True,
    )
    for state, after, both, reset, update, new, unreset in steps:
        product(state, from_state, into=recurrent)
        both.add_(to_both).sigmoid_()
        torch.add(to_new, bias_inside, out=unreset)
        new.addcmul_(reset, unreset, value=2.0).sigmoid_()
        torch.add(minus_one, new, alpha=2.0, out=new)
        torch.lerp(new, state, update, out=after)
    return _Passes(gates, inside, before, last)


def _backward(
    unit: Gates, passes: _Passes, outer: torch.Tensor, workspace: Workspace
) -> torch.Tensor:
    """Return the gradients at the gates' inputs [sequences, bins, 4 * width].

    Side by side: new, reset, update, and new on the state's side (times r). The first three are the
    input side's, the last three the state side's.
    """
    sequences, bins, width = passes.before.shape
    gradients = workspace.take("gradients", sequences, bins, 4 * width, like=outer)
    _write_slopes(passes, gradients)
    steps = zip(
        reversed(gradients.view(sequences, bins, 4, width).unbind(1)),
        reversed(gradients[..., width:].unbind(1)),
        reversed(passes.gates[..., width : 2 * width].unbind(1)),
        strict=True,
    )
    to_state = unit.weight_hh_l0.detach()
    for every, at_state, update in steps:
        every.mul_(outer[:, None])
        outer = product(at_state, to_state).addcmul_(outer, update)
    return gradients


def _write_slopes(passes: _Passes, into: torch.Tensor) -> None:
    """Write what the gradient at the state after a bin is multiplied by, into each gate's place.

    n: (1 - n^2) (1 - z); r: n's times r (1 - r) times the state's part of n; z: (h - n) z (1 - z).
    """
    width = into.shape[-1] // 4
    by_new, by_reset, by_update, by_inside = torch.split(into, width, 2)
    reset, update, new = torch.split(passes.gates, width, 2)
    torch.addcmul(new.new_ones(()), new, new, value=-1.0, out=by_new)
    by_new.addcmul_(by_new, update, value=-1.0)
    torch.sub(passes.before, new, out=by_update).mul_(update)
    by_update.addcmul_(by_update, update, value=-1.0)
    torch.mul(by_new, reset, out=by_inside)
    torch.addcmul(by_inside, by_inside, reset, value=-1.0, out=by_reset)
    by_reset.mul_(passes.inside)
