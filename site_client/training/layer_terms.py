"""What one layer adds to each patient's squared gradient norm, and to the clipped sum.

Book-keeping (Bu et al. 2023, arXiv:2210.00038): a layer's patient gradient is fixed by its input
and the gradient at its output, so norms and clipped sums come from these two without a gradient for
each patient ever being stored. A middle axis holds several positions of one patient (samples or
time bins), whose gradients add up before the norm is taken.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch

from site_client.training.flat_parameters import gradient_of
from site_client.training.workspace import Workspace

_GRAM_COST: Final = 4
"""A multiplication of Gram matrices against one of whole gradients, measured on small models."""


class LayerTerm(Protocol):
    """One layer's share in every patient's gradient."""

    def squared_norm(self) -> torch.Tensor:
        """Return [patients], the squared L2 norm of each patient's gradient in this layer."""
        ...

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the sum of patient gradients, each times its factor, into the layer's `.grad`s.

        Args:
            factors: [patients].
        """
        ...


class LinearTerm:
    """A linear layer: the gradient is the outer product of `outer` and `inner`.

    Args:
        inner: [patients, in] or [patients, positions, in], the layer's input.
        outer: [patients, out] or [patients, positions, out], the loss's gradient at its output.
        weight, bias: the parameters; None or frozen ones have no share.
        workspace: where patients' whole gradients may be kept until the sum, under `name`.
        name: of this layer in the workspace.
    """

    def __init__(
        self,
        inner: torch.Tensor,
        outer: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        workspace: Workspace | None = None,
        name: str = "",
    ) -> None:
        self._inner = inner
        self._outer = outer
        self._weight = weight if weight.requires_grad else None
        self._bias = bias if bias is not None and bias.requires_grad else None
        self._stored: torch.Tensor | None = None
        self._workspace = workspace or Workspace()
        self._name = name

    def squared_norm(self) -> torch.Tensor:
        """Return [patients]; see `LayerTerm`."""
        inner, outer = self._inner, self._outer
        if inner.dim() == 2:
            own = (outer * outer).sum(1)
            scale = (inner * inner).sum(1) if self._weight is not None else own.new_zeros(len(own))
            return own * (scale + 1 if self._bias is not None else scale)
        return self._squared_norm_of_positions()

    def _squared_norm_of_positions(self) -> torch.Tensor:
        inner, outer = self._inner, self._outer
        positions = inner.shape[1]
        bias = outer.sum(1).square().sum(1) if self._bias is not None else 0.0
        if self._weight is None:
            return outer.new_zeros(len(outer)) + bias
        # Gram matrices of the positions where these are few; else the patients' whole gradients,
        # which the sum can use again.
        if _GRAM_COST * positions * (inner.shape[2] + outer.shape[2]) <= (
            inner.shape[2] * outer.shape[2]
        ):
            gram = torch.bmm(outer, outer.transpose(1, 2))
            gram *= torch.bmm(inner, inner.transpose(1, 2))
            return gram.sum((1, 2)) + bias
        self._stored = self._workspace.take(
            self._name, len(outer), outer.shape[2], inner.shape[2], like=outer
        )
        torch.bmm(outer.transpose(1, 2), inner, out=self._stored)
        squared: torch.Tensor = torch.linalg.vector_norm(self._stored, dim=(1, 2)).square_()
        return squared + bias

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `LayerTerm`."""
        outer = self._outer
        if self._stored is not None and self._weight is not None:
            flat = self._stored.flatten(1)
            torch.mv(flat.t(), factors, out=gradient_of(self._weight).view(-1))
            if self._bias is not None:
                torch.mv(outer.sum(1).t(), factors, out=gradient_of(self._bias))
            return
        if outer.dim() == 3:
            scaled = (outer * factors[:, None, None]).reshape(-1, outer.shape[2])
            inner = self._inner.reshape(-1, self._inner.shape[2])
        else:
            scaled, inner = outer * factors[:, None], self._inner
        if self._weight is not None:
            gradient = gradient_of(self._weight)
            torch.mm(scaled.t(), inner, out=gradient)
        if self._bias is not None:
            torch.sum(scaled, 0, out=gradient_of(self._bias))


class LayerNormTerm:
    """Layer normalisation's gain and offset.

    Args:
        normalized: [patients, ..., width], the input after normalisation, before gain and offset.
        outer: of the same shape, the loss's gradient at the output.
        weight, bias: gain and offset; None or frozen ones have no share.
    """

    def __init__(
        self,
        normalized: torch.Tensor,
        outer: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
    ) -> None:
        gradients = []
        for parameter, gradient in ((weight, outer * normalized), (bias, outer)):
            if parameter is not None and parameter.requires_grad:
                positions = tuple(range(1, gradient.dim() - 1))
                gradients.append((parameter, gradient.sum(positions) if positions else gradient))
        self._gradients = gradients
        self._outer = outer

    def squared_norm(self) -> torch.Tensor:
        """Return [patients]; see `LayerTerm`."""
        total = self._outer.new_zeros(len(self._outer))
        for _, gradient in self._gradients:
            total += gradient.square().sum(1)
        return total

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `LayerTerm`."""
        for parameter, gradient in self._gradients:
            torch.mv(gradient.t(), factors, out=gradient_of(parameter))


class EmbeddingTerm:
    """An embedding table: a patient's gradient is `outer` added to the rows that it looked up.

    Args:
        index: int64 [patients, positions], rows looked up.
        outer: [patients, positions, width].
        weight: [rows, width].
        padding: a row without gradient, or None.
    """

    def __init__(
        self,
        index: torch.Tensor,
        outer: torch.Tensor,
        weight: torch.Tensor,
        padding: int | None,
    ) -> None:
        patients = len(index)
        self._index = index.reshape(patients, -1)
        self._outer = outer.reshape(patients, self._index.shape[1], outer.shape[-1])
        if padding is not None:
            self._outer = self._outer * (self._index != padding)[:, :, None]
        self._weight = weight

    def squared_norm(self) -> torch.Tensor:
        """Return [patients]: two positions meet in the norm where they looked up one row."""
        same = self._index[:, :, None] == self._index[:, None, :]
        return (torch.bmm(self._outer, self._outer.transpose(1, 2)) * same).sum((1, 2))

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sum; see `LayerTerm`."""
        gradient = gradient_of(self._weight).zero_()
        scaled = (self._outer * factors[:, None, None]).reshape(-1, self._outer.shape[2])
        gradient.index_add_(0, self._index.reshape(-1), scaled)
