"""Hand-written forward and backward passes of the perceptrons: layer terms of a batch.

The loss of a patient is the weighted sum of its samples' binary cross-entropies with logits, whose
gradient at a logit is weight * (sigmoid(logit) - label). Nothing here makes an autograd graph, and
inference mode spares each call torch's book-keeping for one, a tenth of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import torch
from torch import nn

from common.models import ResidualBlock, ResidualPerceptronModel
from site_client.training.layer_terms import LayerNormTerm, LayerTerm, LinearTerm
from site_client.training.products import product

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch


_ONE: Final = torch.ones(())
_MINUS_ONE: Final = -_ONE


def logit_gradient(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the loss's gradient at the logits [..., 1]."""
    return (torch.sigmoid(logits.squeeze(-1)) - batch.y).mul_(batch.weight).unsqueeze(-1)


class _Linear(NamedTuple):
    """A linear layer's parameters: a module's attributes cost a lookup at every use."""

    weight: torch.Tensor
    bias: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.weight) == 1:
            return nn.functional.linear(x, self.weight, self.bias)
        outputs = product(x.flatten(0, -2), self.weight.t()).add_(self.bias)
        return outputs.view(*x.shape[:-1], -1)

    def forward_tanh(self, x: torch.Tensor) -> torch.Tensor:
        """Return tanh of the outputs, as 2 sigmoid(2a) - 1: torch's own takes four times as long.

        The two differ by less than 2^-23, which is rounding.
        """
        doubled = product(x.flatten(0, -2), self.weight.t())
        torch.add(self.bias * 2.0, doubled, alpha=2.0, out=doubled).sigmoid_()
        torch.add(_MINUS_ONE, doubled, alpha=2.0, out=doubled)
        return doubled.view(*x.shape[:-1], -1)

    def backward(self, outer: torch.Tensor) -> torch.Tensor:
        """Return the gradient at the inputs."""
        if len(self.weight) == 1:
            return outer * self.weight
        inner = product(outer.flatten(0, -2), self.weight.detach())
        return inner.view(*outer.shape[:-1], -1)

    def backward_tanh(self, outer: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """Return the gradient before a tanh whose value was this layer's input."""
        return self.backward(outer).mul_(torch.addcmul(_ONE, activation, activation, value=-1.0))

    def term(self, inner: torch.Tensor, outer: torch.Tensor) -> LinearTerm:
        return LinearTerm(inner, outer, self.weight, self.bias)


class PerceptronBackprops:
    """Linear layers with tanh between; the last gives the logit.

    Args:
        layers: `nn.Linear`s with biases; others between them are skipped.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = [_linear(layer) for layer in layers if isinstance(layer, nn.Linear)]

    @torch.inference_mode()
    def terms(self, batch: Batch) -> list[LayerTerm]:
        """Return the terms of a batch."""
        inner = [batch.x]
        for layer in self._layers[:-1]:
            inner.append(layer.forward_tanh(inner[-1]))
        outer = logit_gradient(self._layers[-1].forward(inner[-1]), batch)
        terms: list[LayerTerm] = []
        for index in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[index]
            terms.append(layer.term(inner[index], outer))
            if index > 0:
                outer = layer.backward_tanh(outer, inner[index])
        return terms


class ResidualBackprops:
    """A residual perceptron, block by block.

    Args:
        model: whose parameters are used.
    """

    def __init__(self, model: ResidualPerceptronModel) -> None:
        blocks = [cast("ResidualBlock", block) for block in model.blocks]
        self._inlet, self._outlet = _linear(model.inlet), _linear(model.outlet)
        self._blocks = [(_Norm(b.norm), _linear(b.first), _linear(b.second)) for b in blocks]
        self._norm = _Norm(model.norm)

    @torch.inference_mode()
    def terms(self, batch: Batch) -> list[LayerTerm]:
        """Return the terms of a batch."""
        x = self._inlet.forward(batch.x)
        passes: list[tuple[_Normalized, torch.Tensor]] = []
        for norm, first, second in self._blocks:
            normalized = norm.forward(x)
            hidden = first.forward_tanh(normalized.output)
            passes.append((normalized, hidden))
            x = x + second.forward(hidden)
        normalized = self._norm.forward(x)
        outer = logit_gradient(self._outlet.forward(normalized.output), batch)
        terms: list[LayerTerm] = [self._outlet.term(normalized.output, outer)]
        outer = self._norm.backward(self._outlet.backward(outer), normalized, terms)
        for (norm, first, second), (normalized, hidden) in zip(
            reversed(self._blocks), reversed(passes), strict=True
        ):
            terms.append(second.term(hidden, outer))
            inside = second.backward_tanh(outer, hidden)
            terms.append(first.term(normalized.output, inside))
            outer = outer + norm.backward(first.backward(inside), normalized, terms)
        terms.append(self._inlet.term(batch.x, outer))
        return terms


class _Normalized(NamedTuple):
    """What a layer normalisation's backward pass needs of its forward pass."""

    x: torch.Tensor
    values: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    output: torch.Tensor


class _Norm:
    """A layer normalisation with gain and offset."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self._shape = list(norm.normalized_shape)
        self._epsilon = norm.eps
        self._gain, self._offset = norm.weight, norm.bias

    def forward(self, x: torch.Tensor) -> _Normalized:
        values, mean, deviation = torch.native_layer_norm(x, self._shape, None, None, self._epsilon)
        output = torch.addcmul(self._offset, values, self._gain)
        return _Normalized(x, values, mean, deviation, output)

    def backward(
        self, outer: torch.Tensor, forward: _Normalized, terms: list[LayerTerm]
    ) -> torch.Tensor:
        """Add the gain's and offset's term; return the gradient at the input."""
        terms.append(LayerNormTerm(forward.values, outer, self._gain, self._offset))
        inner: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            outer,
            forward.x,
            self._shape,
            forward.mean,
            forward.deviation,
            self._gain,
            self._offset,
            [True, False, False],
        )[0]
        return inner


def _linear(layer: nn.Linear) -> _Linear:
    return _Linear(layer.weight, layer.bias)
