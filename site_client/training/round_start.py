"""The optimiser as it was when a round began, so that a round made again begins there.

A round whose release failed (a full disk, a refusal at the gate) was charged once and is trained
anew, with new noise, when it is asked again. Momentum or moments that remembered the attempt that
never left would carry its noised sums into the release: twice the steps for one charge.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from common.canonical import digest_bytes
from common.ids import Digest
from common.protocol.arrays import Parameters


@dataclass(frozen=True)
class OptimizerMemory:
    """What the next round of a study needs of its earlier ones: post-processed noised sums.

    Args:
        received: digest of the model with which the newest round began; None before the first.
        start: the optimiser's state when that round began.
        now: its state after the last step.
    """

    received: Digest | None
    start: dict[str, Any]
    now: dict[str, Any]


class RoundStart:
    """Remembers one round's start.

    Args:
        inner: the optimiser, whose state is that of `vector` alone.
        vector: what it steps.
    """

    def __init__(self, inner: torch.optim.Optimizer, vector: torch.Tensor) -> None:
        self._inner = inner
        self._vector = vector
        self._received: Digest | None = None
        self._fresh = copy.deepcopy(dict(inner.state[vector]))
        self._state: dict[str, Any] = {}

    def begin(self, base: Parameters) -> None:
        """Begin a round from the received model: the same model again is the same round again."""
        received = digest_bytes("round-start", *(array.tobytes() for array in base.values()))
        if received == self._received:
            self._inner.state[self._vector] = copy.deepcopy(self._state)
        else:
            self._received = received
            self._state = copy.deepcopy(dict(self._inner.state[self._vector]))

    def memory(self) -> OptimizerMemory:
        """Return where the study stands; its tensors are the optimiser's own."""
        return OptimizerMemory(self._received, self._state, dict(self._inner.state[self._vector]))

    def recall(self, memory: OptimizerMemory | None) -> None:
        """Stand where `memory` was taken; None: before the first round."""
        if memory is None:
            memory = OptimizerMemory(None, {}, self._fresh)
        self._received, self._state = memory.received, memory.start
        self._inner.state[self._vector] = copy.deepcopy(memory.now)
