"""A model's trainable parameters as one contiguous vector, so that a step touches one tensor."""

from __future__ import annotations

import torch
from torch import nn

from common.errors import InternalError


class FlatParameters:
    """One vector in which every trainable parameter, and its gradient, is a view.

    Noise, scaling and the optimiser then cost one call each instead of one for each layer.

    Args:
        model: whose trainable parameters are moved into the vector; frozen ones stay as they are.

    Attributes:
        vector: [parameters], the leaf that an optimiser steps; its `.grad` is `gradient`.
        gradient: [parameters], of the same dtype; one piece's sum, later the noised gradient.
        total: float64 [parameters], the sum of a step's pieces.
    """

    def __init__(self, model: nn.Module) -> None:
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in trainable])
        self.vector = nn.Parameter(flat)
        self.gradient = torch.zeros_like(flat)
        self.vector.grad = self.gradient
        self.total = torch.zeros_like(flat, dtype=torch.float64)
        start = 0
        for parameter in trainable:
            stop = start + parameter.numel()
            parameter.data = self.vector.data[start:stop].view_as(parameter)
            parameter.grad = self.gradient[start:stop].view_as(parameter)
            start = stop


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """Return the place of a parameter's gradient; raises `InternalError` if there is none."""
    if parameter.grad is None:
        raise InternalError(
            "a trainable parameter has no place for its gradient",
            expected="parameters held by FlatParameters",
            arrived="another model's",
            todo="report this as a fault; nothing was released",
        )
    return parameter.grad
