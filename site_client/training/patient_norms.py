"""The length of each patient's whole gradient, from what the layers say of their shares.

Squares of single precision underflow, so that a length could come out too small; more than they can
have lost is added to them (`layer_terms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import torch

_WIDTH_MAX: Final = 2**20
"""No layer of a model here is as wide."""


class OuterProduct(NamedTuple):
    """A share |outer|^2 (|inner|^2 + plus): a weight's gradient, and with plus a bias's too.

    Args:
        outer: [patients, out].
        inner: [patients, in]; None: the share is |outer|^2.
        plus: whether 1 is added.
    """

    outer: torch.Tensor
    inner: torch.Tensor | None = None
    plus: bool = False


NormPart: TypeAlias = OuterProduct | torch.Tensor
"""Or a share's squared length [patients], computed by the layer itself."""


def squared_norms(parts: Sequence[NormPart]) -> torch.Tensor:
    """Return [patients], each patient's squared L2 norm over all parts; there is at least one."""
    sums: list[torch.Tensor] = []
    bare: list[torch.Tensor] = []
    full: dict[bool, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for part in parts:
        if isinstance(part, torch.Tensor):
            sums.append(part)
        elif part.inner is None:
            bare.append(part.outer)
        else:
            full.setdefault(part.plus, []).append((part.outer, part.inner))
    for plus, pairs in full.items():
        sums.append(_squared_norms_of_products(pairs, bare, plus=plus))
        bare = []
    if bare:
        sums.append(_squared_norms_of_products([], bare, plus=False))
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total


def underflow(values: torch.Tensor) -> float:
    """Return more than what squares of one row's values can have lost."""
    return _WIDTH_MAX * torch.finfo(values.dtype).tiny


def _squared_norms_of_products(
    full: Sequence[tuple[torch.Tensor, torch.Tensor]], bare: Sequence[torch.Tensor], *, plus: bool
) -> torch.Tensor:
    """Return [patients], all products together: a call for each costs more than its arithmetic."""
    rows = [outer for outer, _ in full]
    rows += bare
    rows += [inner for _, inner in full]
    squares = torch.stack([torch.linalg.vector_norm(values, dim=1) for values in rows])
    squares.square_().add_(underflow(squares))
    own = squares[: len(full) + len(bare)]
    products, inner = squares[: len(full)], squares[len(own) :]
    if plus:
        products.addcmul_(products, inner)
    else:
        products.mul_(inner)
    return own.sum(0)
