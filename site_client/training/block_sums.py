"""Sums over patients in blocks of 256, added in float64: rounding stays within its margin."""

from __future__ import annotations

from typing import Final

import torch

BLOCK: Final = 256
"""Patients whose products are added in the parameters' own precision; see `SENSITIVITY_MARGIN`."""


def write_products(left: torch.Tensor, right: torch.Tensor, *, into: torch.Tensor) -> None:
    """Write the sum over patients of left[i] times right[i], an outer product.

    Args:
        left: [patients, rows].
        right: [patients, columns].
        into: [rows, columns].
    """
    patients = len(left)
    if patients <= BLOCK:
        torch.mm(left.t(), right, out=into)
        return
    whole = patients - patients % BLOCK
    blocks = torch.bmm(
        left[:whole].view(-1, BLOCK, left.shape[1]).transpose(1, 2),
        right[:whole].view(-1, BLOCK, right.shape[1]),
    )
    total = blocks.sum(0, dtype=torch.float64)
    if whole < patients:
        total += torch.mm(left[whole:].t(), right[whole:])
    into.copy_(total)


def write_rows(values: torch.Tensor, *, into: torch.Tensor) -> None:
    """Write the sum over patients of values[i].

    Args:
        values: [patients, columns].
        into: [columns].
    """
    patients = len(values)
    if patients <= BLOCK:
        torch.sum(values, 0, out=into)
        return
    whole = patients - patients % BLOCK
    total = values[:whole].view(-1, BLOCK, values.shape[1]).sum(1).sum(0, dtype=torch.float64)
    if whole < patients:
        total += values[whole:].sum(0)
    into.copy_(total)
