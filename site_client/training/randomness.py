"""Where DP noise and patient sampling come from.

`Randomness.from_system` is AES-128 in counter mode keyed by the operating system, one key for noise
and another for sampling, new for every release; the words for counts are the operating system's
own. torch's generators are never used: they keep 32 bits of their seed, and their float32 normals
end at 5.77 standard deviations.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from randomgen import AESCounter

from common.privacy.discrete_gaussian import Words, system_words

_KEY_BYTES: Final = 16
_VECTOR_MIN: Final = 2048
"""Below this length, one call of numpy costs less than many on vectors."""


@dataclass(frozen=True)
class Randomness:
    """Three independent streams.

    Args:
        noise: for the Gaussian noise of training.
        noise_words: for the discrete Gaussian noise of counts, from the operating system itself.
        sampling: for Poisson sampling of patients.
        is_reproducible: true only for tests; a real ledger refuses it.
    """

    noise: np.random.Generator
    noise_words: Words
    sampling: np.random.Generator
    is_reproducible: bool

    @classmethod
    def from_system(cls) -> Self:
        """Return streams with fresh keys from the operating system."""
        noise, sampling = (_counter(os.urandom(_KEY_BYTES)) for _ in range(2))
        return cls(_Normals(noise), system_words(), np.random.Generator(sampling), False)

    @classmethod
    def reproducible(cls, seed: int) -> Self:
        """Return streams that are a function of `seed`, for tests and simulations only."""
        noise, sampling, counts = np.random.SeedSequence(seed).spawn(3)
        return cls(
            np.random.default_rng(noise),
            _reproducible_words(np.random.default_rng(counts)),
            np.random.default_rng(sampling),
            True,
        )


def _reproducible_words(generator: np.random.Generator) -> Words:
    while True:
        yield int(generator.integers(1 << 32))


class _Normals(np.random.Generator):
    """Normals a vector at a time, by Box and Muller (1958): numpy's own take half as long
    again. Logarithm, cosine and sine are torch's, which needs no AVX-512 for them.

    Two uniforms of 53 bits make two normals, in float64 and with tails to 8.5 deviations.
    """

    _uniforms = np.empty(0)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Return standard normals, in `out` [n] where it is given."""
        if out is None or len(out) < _VECTOR_MIN:
            return super().standard_normal(size, dtype, out)
        half = (len(out) + 1) // 2
        if len(self._uniforms) != 2 * half:
            self._uniforms = np.empty(2 * half)
        uniforms = self.random(out=self._uniforms)
        radius, angle = uniforms[:half], uniforms[half:]
        np.negative(radius, out=radius)
        torch.from_numpy(radius).log1p_()
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle *= 2.0 * math.pi
        first, second = out[:half], out[half:]
        torch.cos(torch.from_numpy(angle), out=torch.from_numpy(first))
        first *= radius
        torch.sin(torch.from_numpy(angle[: len(second)]), out=torch.from_numpy(second))
        second *= radius[: len(second)]
        return out


def _counter(key: bytes) -> AESCounter:
    # The key goes in as it is: randomgen's `seed` would stretch it through a weaker generator.
    return AESCounter(key=np.frombuffer(key, dtype=np.uint64), counter=0)
