"""The length of each patient's whole gradient, from what the layers say of their shares.

Squares of single precision underflow, so that a length could come out too small; what they can have
lost is added to them (`layer_terms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch


@dataclass(frozen=True)
class OuterProduct:
    """A share |outer|^2 (|inner|^2 + plus): a weight's gradient, and with plus = 1 a bias's too.

    Args:
        outer: [patients, out].
        inner: [patients, in]; None: the share is |outer|^2.
        plus: 0 or 1.
    """

    outer: torch.Tensor
    inner: torch.Tensor | None = None
    plus: float = 0.0


NormPart: TypeAlias = OuterProduct | torch.Tensor
"""Or a share's squared length [patients], computed by the layer itself."""


def squared_norms(parts: Sequence[NormPart]) -> torch.Tensor:
    """Return [patients], each patient's squared L2 norm over all parts; there is at least one."""
    bare = [part.outer for part in parts if isinstance(part, OuterProduct) and part.inner is None]
    sums = [part for part in parts if isinstance(part, torch.Tensor)]
    for plus in (0.0, 1.0):
        full = [
            (part.outer, part.inner)
            for part in parts
            if isinstance(part, OuterProduct) and part.inner is not None and part.plus == plus
        ]
        if full or bare:
            sums.append(_squared_norms_of_products(full, bare, plus))
        bare = []
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total


def _squared_norms_of_products(
    full: Sequence[tuple[torch.Tensor, torch.Tensor]], bare: Sequence[torch.Tensor], plus: float
) -> torch.Tensor:
    """Return [patients], all products together: a call for each costs more than its arithmetic."""
    rows = [*(outer for outer, _ in full), *bare, *(inner for _, inner in full)]
    squares = torch.stack([torch.linalg.vector_norm(values, dim=1) for values in rows])
    squares.square_().add_(max(underflow(values) for values in rows))
    own, inner = squares.split_with_sizes([len(full) + len(bare), len(full)])
    products = own[: len(full)]
    if plus:
        products.addcmul_(products, inner)
    else:
        products.mul_(inner)
    return own.sum(0)


def underflow(values: torch.Tensor) -> float:
    """Return the most that squares of one row's values can have lost."""
    return float(values.shape[-1] * torch.finfo(values.dtype).tiny)
