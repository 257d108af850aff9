"""Hand-written forward and backward passes of the perceptrons: layer terms of a batch.

The loss of a patient is the weighted sum of its samples' binary cross-entropies with logits, whose
gradient at a logit is weight * (sigmoid(logit) - label). Nothing here makes an autograd graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from common.models import ResidualBlock, ResidualPerceptronModel
from site_client.training.layer_terms import LayerNormTerm, LayerTerm, LinearTerm

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch


def logit_gradient(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the loss's gradient at the logits [..., 1]."""
    return (torch.sigmoid(logits.squeeze(-1)) - batch.y).mul_(batch.weight).unsqueeze(-1)


def tanh_(values: torch.Tensor) -> torch.Tensor:
    """Return tanh, in place, as 2 sigmoid(2x) - 1: torch's own tanh takes four times as long.

    The two differ by less than 2^-23, which is rounding.
    """
    return values.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


@torch.no_grad()
def perceptron_terms(layers: Sequence[nn.Module], batch: Batch) -> list[LayerTerm]:
    """Return the terms of linear layers with tanh between; the last gives the logit.

    Args:
        layers: `nn.Linear`s.
        batch: the step's patients.
    """
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    inner = [batch.x]
    for layer in linear[:-1]:
        inner.append(tanh_(nn.functional.linear(inner[-1], layer.weight, layer.bias)))
    last = linear[-1]
    outer = logit_gradient(nn.functional.linear(inner[-1], last.weight, last.bias), batch)
    terms: list[LayerTerm] = []
    for index in range(len(linear) - 1, -1, -1):
        layer = linear[index]
        terms.append(LinearTerm(inner[index], outer, layer.weight, layer.bias))
        if index > 0:
            outer = (outer @ layer.weight).mul_(_tanh_slope(inner[index]))
    return terms


@torch.no_grad()
def residual_terms(model: ResidualPerceptronModel, batch: Batch) -> list[LayerTerm]:
    """Return the terms of a residual perceptron; see `perceptron_terms`."""
    x = nn.functional.linear(batch.x, model.inlet.weight, model.inlet.bias)
    passes: list[tuple[_Normalized, torch.Tensor]] = []
    blocks = [cast("ResidualBlock", block) for block in model.blocks]
    for block in blocks:
        normalized = _Normalized(x, block.norm)
        hidden = tanh_(
            nn.functional.linear(normalized.output, block.first.weight, block.first.bias)
        )
        passes.append((normalized, hidden))
        x = x + nn.functional.linear(hidden, block.second.weight, block.second.bias)
    normalized = _Normalized(x, model.norm)
    logits = nn.functional.linear(normalized.output, model.outlet.weight, model.outlet.bias)
    outer = logit_gradient(logits, batch)
    terms: list[LayerTerm] = [
        LinearTerm(normalized.output, outer, model.outlet.weight, model.outlet.bias)
    ]
    outer = normalized.backward(outer @ model.outlet.weight, terms)
    for block, (normalized, hidden) in zip(reversed(blocks), reversed(passes), strict=True):
        terms.append(LinearTerm(hidden, outer, block.second.weight, block.second.bias))
        inside = (outer @ block.second.weight).mul_(_tanh_slope(hidden))
        terms.append(LinearTerm(normalized.output, inside, block.first.weight, block.first.bias))
        outer = outer + normalized.backward(inside @ block.first.weight, terms)
    terms.append(LinearTerm(batch.x, outer, model.inlet.weight, model.inlet.bias))
    return terms


def _tanh_slope(activation: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(activation.new_ones(()), activation, activation, value=-1.0)


class _Normalized:
    """Layer normalisation's forward pass, kept for its backward pass."""

    def __init__(self, x: torch.Tensor, norm: nn.LayerNorm) -> None:
        self._x = x
        self._norm = norm
        self.output, self._mean, self._deviation = torch.native_layer_norm(
            x, list(norm.normalized_shape), norm.weight, norm.bias, norm.eps
        )

    def backward(self, outer: torch.Tensor, terms: list[LayerTerm]) -> torch.Tensor:
        """Add the gain's and offset's term; return the gradient at the input."""
        norm = self._norm
        normalized = (self._x - self._mean).mul_(self._deviation)
        terms.append(LayerNormTerm(normalized, outer, norm.weight, norm.bias))
        inner: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            outer,
            self._x,
            norm.normalized_shape,
            self._mean,
            self._deviation,
            norm.weight,
            norm.bias,
            [True, False, False],
        )[0]
        return inner
