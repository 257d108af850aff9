"""Gaussian noise on a clipped sum, on a grid, with a margin for the sum's own rounding.

Noise is drawn in float64 and the noised sum is rounded to a public grid before it becomes float32:
the rounding closes the low-order bits through which floating-point noise leaks (Mironov 2012).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

GRID_BITS: Final = 20
"""The grid's step is at most 2^-20 of the noise's standard deviation."""
SENSITIVITY_MARGIN: Final = 0.01
"""Extra noise, because one patient's row changes a float32 sum by more than the clipped gradient C.

Another patient's row never moves (`slots`), and blocks are added in float64, so only the rounding
within the block of R = 320 rows differs. Each addition of a sum errs by at most u = 2^-24 of what
it makes (Higham 2002, section 4.2), at most k C long where it adds up k patients; over any order of
summation these k add up to R (R + 1) / 2 at most, and scaling and multiplying err by 2 u C a
patient. So each of the two sums errs by at most (R^2 + 5 R) / 2 u C, both by 0.62 % of C, and the
norms' own rounding adds < 0.1 %.
"""


def write_noised(
    total: torch.Tensor,
    *,
    deviation: float,
    noise: np.random.Generator,
    buffer: torch.Tensor,
    into: torch.Tensor,
) -> None:
    """Write a sum plus noise, rounded to the grid.

    Args:
        total: float64 [parameters], the clipped sum.
        deviation: of the noise in each coordinate, with its margin; 0 adds none, for tests only.
        noise: float64 stream.
        buffer: float64 [parameters], overwritten.
        into: float32 or float64 [parameters].
    """
    if deviation <= 0:
        into.copy_(total)
        return
    # In units of the grid, so that rounding is to whole numbers; the step is a power of two,
    # hence exact. One pass a line over the whole vector.
    step = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    noise.standard_normal(out=buffer.numpy())
    buffer.mul_(deviation / step).add_(total, alpha=1 / step).round_()
    torch.mul(buffer, step, out=into)
