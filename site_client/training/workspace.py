"""Memory that steps use again: fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import math

import torch


class Workspace:
    """Named buffers that grow to the largest batch and are handed out again at every step.

    A tensor that was taken is valid until its name is taken again.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Return a contiguous tensor of a shape and of `like`'s dtype, its content undefined."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != like.dtype:
            buffer = self._buffers[name] = like.new_empty(size)
        return buffer[:size].view(shape)
