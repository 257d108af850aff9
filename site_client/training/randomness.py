"""Where DP noise and patient sampling come from.

`Randomness.from_system` is AES-128 in counter mode keyed by the operating system, one key for noise
and another for sampling, new for every release. torch's own generators are never used: they keep 32
bits of their seed, and their float32 normals end at 5.77 standard deviations.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from randomgen import AESCounter

_KEY_BYTES: Final = 16


@dataclass(frozen=True)
class Randomness:
    """Two independent streams.

    Args:
        noise: for DP noise.
        sampling: for Poisson sampling of patients.
        is_reproducible: true only for tests; a real ledger refuses it.
    """

    noise: np.random.Generator
    sampling: np.random.Generator
    is_reproducible: bool

    @classmethod
    def from_system(cls) -> Self:
        """Return streams with fresh keys from the operating system."""
        return cls(_generator(os.urandom(_KEY_BYTES)), _generator(os.urandom(_KEY_BYTES)), False)

    @classmethod
    def reproducible(cls, seed: int) -> Self:
        """Return streams that are a function of `seed`, for tests and simulations only."""
        noise, sampling = np.random.SeedSequence(seed).spawn(2)
        return cls(np.random.default_rng(noise), np.random.default_rng(sampling), True)


def _generator(key: bytes) -> np.random.Generator:
    # The key goes in as it is: randomgen's `seed` would stretch it through a weaker generator.
    words = np.frombuffer(key, dtype=np.uint64)
    return np.random.Generator(AESCounter(key=words, counter=0))
