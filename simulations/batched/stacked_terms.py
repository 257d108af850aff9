"""What one layer of several sites adds to each patient's gradient norm and to each site's sum.

The sites' layers lie in one stack; the arithmetic for a patient is that of
`site_client.training.layer_terms`. A row of weight zero has no gradient, so sites that drew fewer
patients are filled up with such rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from site_client.training.patient_norms import OuterProduct


class StackedTerm(Protocol):
    """One layer's share in every patient's gradient."""

    def norm_part(self) -> Sequence[OuterProduct]:
        """Return what sums to the squared norms, over all sites' rows [sites * rows]."""
        ...

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write each site's sum of patient gradients, each times its factor [sites, rows]."""
        ...

    def clear(self, rows: torch.Tensor) -> None:
        """Make the gradient of some rows zero: bool [sites, rows]."""
        ...


class StackedLinear:
    """Linear layers of all sites.

    Args:
        weight, bias: [sites, out, in] and [sites, out], views of the parameters.
        weight_sum, bias_sum: of the same shapes, views of where the clipped sums go.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        weight_sum: torch.Tensor,
        bias_sum: torch.Tensor,
    ) -> None:
        self.weight = weight
        self.weight_sum = weight_sum
        self.bias_sum = bias_sum[:, None]
        self._transposed = weight.transpose(1, 2)
        self._bias = bias[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs [sites, rows, out]."""
        if self.weight.shape[1] == 1:
            # One output: only in this order is a site's product the same beside any others.
            return torch.bmm(self.weight, x.transpose(1, 2)).transpose(1, 2) + self._bias
        return torch.baddbmm(self._bias, x, self._transposed)

    def forward_tanh(self, x: torch.Tensor) -> torch.Tensor:
        """Return tanh of the outputs, as 2 sigmoid(2a) - 1, like `backprops`."""
        doubled = torch.baddbmm(self._bias, x, self._transposed, beta=2.0, alpha=2.0).sigmoid_()
        return doubled.mul_(2.0).sub_(1.0)

    def backward(self, outer: torch.Tensor) -> torch.Tensor:
        """Return the gradient at the inputs."""
        return torch.bmm(outer, self.weight)

    def backward_tanh(self, outer: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
        """Return the gradient before a tanh whose value was this layer's input."""
        return self.backward(outer).mul_((activation * activation).neg_().add_(1.0))

    def term(self, inner: torch.Tensor, outer: torch.Tensor) -> StackedLinearTerm:
        """Return the layer's term.

        Args:
            inner: [sites, rows, in], the input.
            outer: [sites, rows, out], the loss's gradient at the output.
        """
        return StackedLinearTerm(self, inner, outer)


class StackedLinearTerm:
    """A patient's gradient is the outer product of `outer` and `inner`."""

    def __init__(self, layer: StackedLinear, inner: torch.Tensor, outer: torch.Tensor) -> None:
        self._layer = layer
        self._inner = inner
        self._outer = outer

    def norm_part(self) -> Sequence[OuterProduct]:
        """Return the layer's part; see `StackedTerm`."""
        return [OuterProduct(self._outer.flatten(0, 1), self._inner.flatten(0, 1), True)]

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `StackedTerm`."""
        scaled = self._outer * factors[:, :, None]
        torch.bmm(scaled.transpose(1, 2), self._inner, out=self._layer.weight_sum)
        torch.sum(scaled, 1, keepdim=True, out=self._layer.bias_sum)

    def clear(self, rows: torch.Tensor) -> None:
        """Make some rows' gradients zero; see `StackedTerm`."""
        self._inner = torch.where(rows[:, :, None], 0.0, self._inner)
        self._outer = torch.where(rows[:, :, None], 0.0, self._outer)


class StackedNorm:
    """Layer normalisations of all sites, with gain and offset.

    Args:
        gain, offset: [sites, width], views of the parameters.
        gain_sum, offset_sum: of the same shape, views of where the clipped sums go.
        epsilon: under the root.
    """

    def __init__(
        self,
        gain: torch.Tensor,
        offset: torch.Tensor,
        gain_sum: torch.Tensor,
        offset_sum: torch.Tensor,
        *,
        epsilon: float,
    ) -> None:
        self._gain, self._offset = gain[:, None], offset[:, None]
        self._sums = (gain_sum[:, None], offset_sum[:, None])
        self._width = [gain.shape[1]]
        self._epsilon = epsilon

    def forward(self, x: torch.Tensor) -> Normalized:
        """Return the outputs [sites, rows, width] and what the backward pass needs."""
        values, mean, deviation = torch.native_layer_norm(x, self._width, None, None, self._epsilon)
        output = torch.addcmul(self._offset, values, self._gain)
        return Normalized(x, values, mean, deviation, output)

    def backward(
        self, outer: torch.Tensor, forward: Normalized, terms: list[StackedTerm]
    ) -> torch.Tensor:
        """Add the gain's and offset's term; return the gradient at the input."""
        terms.append(StackedNormTerm(self._sums, (outer * forward.values, outer)))
        inner: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            outer * self._gain,
            forward.x,
            self._width,
            forward.mean,
            forward.deviation,
            None,
            None,
            [True, False, False],
        )[0]
        return inner


class Normalized:
    """A layer normalisation's forward pass."""

    def __init__(
        self,
        x: torch.Tensor,
        values: torch.Tensor,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        output: torch.Tensor,
    ) -> None:
        self.x, self.values, self.mean, self.deviation = x, values, mean, deviation
        self.output = output


class StackedNormTerm:
    """A patient's gradients of gain and offset, as they are."""

    def __init__(self, sums: tuple[torch.Tensor, ...], gradients: tuple[torch.Tensor, ...]) -> None:
        self._sums = sums
        self._gradients = gradients

    def norm_part(self) -> Sequence[OuterProduct]:
        """Return the layer's parts; see `StackedTerm`."""
        return [OuterProduct(gradient.flatten(0, 1)) for gradient in self._gradients]

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `StackedTerm`."""
        for place, gradient in zip(self._sums, self._gradients, strict=True):
            torch.bmm(factors[:, None], gradient, out=place)

    def clear(self, rows: torch.Tensor) -> None:
        """Make some rows' gradients zero; see `StackedTerm`."""
        self._gradients = tuple(
            torch.where(rows[:, :, None], 0.0, gradient) for gradient in self._gradients
        )
