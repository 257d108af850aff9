"""What one layer adds to each patient's squared gradient norm, and to the clipped sum.

Book-keeping (Bu et al. 2023, arXiv:2210.00038): a layer's patient gradient is fixed by its input
and the gradient at its output, so norms and clipped sums come from these two without a gradient for
each patient ever being stored. A middle axis holds several positions of one patient (samples or
time bins), whose gradients add up before the norm is taken.

Norms are never too small. A hostile model can make a square underflow to zero that a huge partner
would have multiplied, or positions cancel until only rounding is left of a sum of products; a
patient whose norm came out too small would pass the clipping norm. Both are bounded from above
instead, and honest models never meet either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch

from site_client.training.block_sums import write_products, write_rows, write_weighted
from site_client.training.flat_parameters import gradient_of
from site_client.training.patient_norms import NormPart, OuterProduct, underflow
from site_client.training.products import product
from site_client.training.workspace import Workspace

_GRAM_COST: Final = 4
"""A multiplication of Gram matrices against one of whole gradients, measured on small models."""

CANCELLED: Final = 1e-2
"""Below this part of its terms' absolute sum, rounding could be seen in a norm."""


class LayerTerm(Protocol):
    """One layer's share in every patient's gradient."""

    def norm_parts(self) -> Sequence[NormPart]:
        """Return what sums to the squared L2 norm of each patient's gradient in this layer."""
        ...

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the sum of patient gradients, each times its factor, into the layer's `.grad`s.

        Args:
            factors: [patients].
        """
        ...

    def clear(self, rows: torch.Tensor) -> None:
        """Make the gradient of some patients zero, without moving the others.

        Args:
            rows: bool [patients].
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
        self._stored_bias: torch.Tensor | None = None
        self._workspace = workspace or Workspace()
        self._name = name

    def norm_parts(self) -> Sequence[NormPart]:
        """Return the layer's parts; see `LayerTerm`."""
        if self._outer.dim() == 3:
            return [self._squared_norm_of_positions()]
        plus = self._bias is not None
        if self._weight is not None:
            return [OuterProduct(self._outer, self._inner, plus)]
        return [OuterProduct(self._outer)] if plus else []

    def clear(self, rows: torch.Tensor) -> None:
        """Make some patients' gradients zero; see `LayerTerm`."""
        shape = (-1,) + (1,) * (self._outer.dim() - 1)
        self._inner = torch.where(rows.view(shape), 0.0, self._inner)
        self._outer = torch.where(rows.view(shape), 0.0, self._outer)

    def _squared_norm_of_positions(self) -> torch.Tensor:
        inner, outer = self._inner, self._outer
        positions = inner.shape[1]
        if self._weight is None:
            return self._squared_norm_of_bias((outer * outer).sum(2))
        # Gram matrices of the positions where these are few; else the patients' whole gradients,
        # which the sum then uses as they are, so that what is clipped is what is summed.
        if _GRAM_COST * positions * (inner.shape[2] + outer.shape[2]) > (
            inner.shape[2] * outer.shape[2]
        ):
            return self._squared_norm_of_stored()
        gram, other = (torch.bmm(item, item.transpose(1, 2)) for item in (outer, inner))
        squares = gram.diagonal(dim1=1, dim2=2).clone()
        lost = _squared_length(other.diagonal(dim1=1, dim2=2)) * underflow(outer)
        lost += _squared_length(squares) * underflow(inner)
        gram *= other
        return _sum_of_products(gram) + lost + self._squared_norm_of_bias(squares)

    def _squared_norm_of_stored(self) -> torch.Tensor:
        inner, outer = self._inner, self._outer
        self._stored = self._workspace.take(
            self._name, len(outer), outer.shape[2], inner.shape[2], like=outer
        )
        product(outer.transpose(1, 2), inner, into=self._stored)
        squared: torch.Tensor = torch.linalg.vector_norm(self._stored, dim=(1, 2)).square_()
        if self._bias is not None:
            self._stored_bias = outer.sum(1)
            squared += torch.linalg.vector_norm(self._stored_bias, dim=1).square_()
        return squared

    def _squared_norm_of_bias(self, squares: torch.Tensor) -> torch.Tensor:
        """Return [patients]; `squares` [patients, positions] are the positions' squared lengths."""
        if self._bias is None:
            return squares.new_zeros(len(squares))
        total, most = self._outer.sum(1).square().sum(1), _squared_length(squares)
        return torch.where(total < CANCELLED**2 * most, most, total)

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `LayerTerm`."""
        outer = self._outer
        if self._stored is not None and self._weight is not None:
            flat = self._stored.flatten(1)
            write_weighted(flat, factors, into=gradient_of(self._weight).view(-1))
            if self._bias is not None and self._stored_bias is not None:
                write_weighted(self._stored_bias, factors, into=gradient_of(self._bias))
            return
        if outer.dim() == 2:
            if self._weight is not None:
                scaled = outer * factors[:, None]
                write_products(scaled, self._inner, into=gradient_of(self._weight))
            if self._bias is not None:
                write_weighted(outer, factors, into=gradient_of(self._bias))
            return
        scaled = (outer * factors[:, None, None]).reshape(-1, outer.shape[2])
        if self._weight is not None:
            # Positions may cancel, and then their rounding is all there is.
            inner = self._inner.reshape(-1, self._inner.shape[2])
            gradient_of(self._weight).copy_(torch.mm(scaled.double().t(), inner.double()))
        if self._bias is not None:
            write_rows(scaled, into=gradient_of(self._bias))


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

    def norm_parts(self) -> Sequence[NormPart]:
        """Return the layer's parts; see `LayerTerm`."""
        return [OuterProduct(gradient) for _, gradient in self._gradients]

    def clear(self, rows: torch.Tensor) -> None:
        """Make some patients' gradients zero; see `LayerTerm`."""
        self._gradients = [
            (parameter, torch.where(rows[:, None], 0.0, gradient))
            for parameter, gradient in self._gradients
        ]

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sums; see `LayerTerm`."""
        for parameter, gradient in self._gradients:
            write_weighted(gradient, factors, into=gradient_of(parameter))


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

    def norm_parts(self) -> Sequence[NormPart]:
        """Return the squared norm: two positions meet in it where they looked up one row."""
        same = self._index[:, :, None] == self._index[:, None, :]
        return [_sum_of_products(torch.bmm(self._outer, self._outer.transpose(1, 2)) * same)]

    def write_sum(self, factors: torch.Tensor) -> None:
        """Write the clipped sum; see `LayerTerm`."""
        scaled = (self._outer * factors[:, None, None]).reshape(-1, self._outer.shape[2]).double()
        total = torch.zeros_like(self._weight, dtype=torch.float64)
        total.index_add_(0, self._index.reshape(-1), scaled)
        gradient_of(self._weight).copy_(total)

    def clear(self, rows: torch.Tensor) -> None:
        """Make some patients' gradients zero; see `LayerTerm`."""
        self._outer = torch.where(rows[:, None, None], 0.0, self._outer)


def _squared_length(squares: torch.Tensor) -> torch.Tensor:
    """Return [patients], the square of the sum of the positions' lengths."""
    return squares.clamp(min=0).sqrt().sum(1).square()


def _sum_of_products(gram: torch.Tensor) -> torch.Tensor:
    """Return [patients], the sum over pairs of positions, or of absolute values if it cancels."""
    total, most = gram.sum((1, 2)), gram.abs().sum((1, 2))
    return torch.where(total < CANCELLED * most, most, total)
