"""Matrix products of small matrices: NumPy's BLAS takes half the time of the one in PyTorch.

So on AMD's processors with AVX-512, which PyTorch's MKL does not use there; without AVX-512 they
are alike. Where one side is a vector, PyTorch's own calls cost less. What overflows becomes
infinite or no number, as in PyTorch; NumPy warns of it outside `numpy.errstate`.
"""

from __future__ import annotations

import numpy as np
import torch


def product(
    left: torch.Tensor, right: torch.Tensor, *, into: torch.Tensor | None = None
) -> torch.Tensor:
    """Return left times right.

    Args:
        left: [rows, inner]; or [batch, rows, inner]. Like the others without a gradient of its own.
        right: [inner, columns]; or [batch, inner, columns].
        into: [rows, columns] or [batch, rows, columns], where the product is written.
    """
    if into is None:
        into = left.new_empty(*left.shape[:-1], right.shape[-1])
    np.matmul(left.numpy(), right.numpy(), out=into.numpy())
    return into
