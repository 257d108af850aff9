"""Sums over patients in blocks of at most 320, added in float64: rounding keeps to its margin."""

from __future__ import annotations

from typing import Final

import torch

from site_client.training.products import product

BLOCK: Final = 320
"""The most patients that are added in the parameters' own precision; see `SENSITIVITY_MARGIN`."""
EVEN: Final = 8
"""A multiple of this many patients, 2048 at most, divides into few blocks of one size."""


def write_products(left: torch.Tensor, right: torch.Tensor, *, into: torch.Tensor) -> None:
    """Write the sum over patients of left[i] times right[i], an outer product.

    Args:
        left: [patients, rows].
        right: [patients, columns].
        into: [rows, columns].
    """
    blocks = _block_count(len(left))
    if blocks == 1:
        if left.shape[1] == 1:
            torch.mm(left.t(), right, out=into)
        else:
            product(left.t(), right, into=into)
        return
    products = product(
        left.view(blocks, -1, left.shape[1]).transpose(1, 2),
        right.view(blocks, -1, right.shape[1]),
    )
    into.copy_(products.sum(0, dtype=torch.float64))


def write_rows(values: torch.Tensor, *, into: torch.Tensor) -> None:
    """Write the sum over patients of values[i].

    Args:
        values: [patients, columns].
        into: [columns].
    """
    blocks = _block_count(len(values))
    if blocks == 1:
        torch.sum(values, 0, out=into)
        return
    into.copy_(values.view(blocks, -1, values.shape[1]).sum(1).sum(0, dtype=torch.float64))


def write_weighted(values: torch.Tensor, factors: torch.Tensor, *, into: torch.Tensor) -> None:
    """Write the sum over patients of values[i] times factors[i].

    Args:
        values: [patients, columns].
        factors: [patients].
        into: [columns].
    """
    blocks = _block_count(len(values))
    if blocks == 1:
        torch.mv(values.t(), factors, out=into)
        return
    products = torch.bmm(factors.view(blocks, 1, -1), values.view(blocks, -1, values.shape[1]))
    into.copy_(products.sum((0, 1), dtype=torch.float64))


def _block_count(patients: int) -> int:
    """Return the least number of blocks of one size; `slots.fill_up` keeps it near the least."""
    blocks = max(1, -(-patients // BLOCK))
    while patients % blocks != 0:
        blocks += 1
    return blocks
