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
    # All outer products together: a call for each would cost more than its arithmetic.
    full = [part for part in parts if isinstance(part, OuterProduct) and part.inner is not None]
    bare = [part for part in parts if isinstance(part, OuterProduct) and part.inner is None]
    sums = [part for part in parts if isinstance(part, torch.Tensor)]
    if full or bare:
        rows = [part.outer for part in full + bare]
        rows += [part.inner for part in full if part.inner is not None]
        lost = [underflow(values) for values in rows]
        for index, part in enumerate(full, start=len(full) + len(bare)):
            lost[index] += part.plus
        squares = torch.stack([torch.linalg.vector_norm(values, dim=1) for values in rows])
        squares.square_().add_(squares.new_tensor(lost)[:, None])
        own, inner = squares.split_with_sizes([len(full) + len(bare), len(full)])
        own[: len(full)].mul_(inner)
        sums.append(own.sum(0))
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total


def underflow(values: torch.Tensor) -> float:
    """Return the most that squares of one row's values can have lost."""
    return float(values.shape[-1] * torch.finfo(values.dtype).tiny)
