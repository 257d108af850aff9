"""The stream that DP noise and sampling read is AES in counter mode, as OpenSSL computes it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from site_client.training import randomness


def test_the_stream_is_aes_128_in_counter_mode_under_the_whole_key() -> None:
    for key in (bytes(16), b"\xff" * 16, os.urandom(16)):
        ours = np.random.Generator(randomness._counter(key)).bit_generator.random_raw(4096)
        blocks = b"".join(number.to_bytes(16, "little") for number in range(2048))
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        theirs = np.frombuffer(encryptor.update(blocks), dtype="<u8")
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 2048, 4097, 2_000_001])
def test_normals_from_the_stream_are_normal_to_their_tails_and_independent(size: int) -> None:
    stream = randomness.Randomness.from_system().noise
    draws = np.concatenate(
        [stream.standard_normal(out=np.empty(size)) for _ in range(1 + 2_000_000 // size)]
        if size > 1
        else [stream.standard_normal(out=np.empty(size)) for _ in range(20_000)]
    )
    assert stats.kstest(draws, "norm").pvalue > 1e-7
    for bound, expected in ((3.0, 2.6998e-3), (4.0, 6.3342e-5)):
        found = float((np.abs(draws) > bound).mean())
        assert abs(found - expected) < 6 * np.sqrt(expected / draws.size) + 1 / draws.size
    assert abs(float((draws**4).mean()) - 3.0) < 6 * np.sqrt(96 / draws.size)
    # The halves of a vector share uniforms: neither they nor their squares may hang together.
    for left, right in ((draws, np.roll(draws, 1)), (draws, np.roll(draws, (size + 1) // 2))):
        for power in (1, 2):
            correlation = float(np.corrcoef(left**power, right**power)[0, 1])
            assert abs(correlation) < 6 / np.sqrt(draws.size)


def test_no_normal_of_the_stream_is_infinite() -> None:
    for edge in (0.0, 1.0 - 2.0**-53):
        drawn = _with_uniforms(edge).standard_normal(out=np.empty(2049))
        assert np.isfinite(drawn).all()
        assert np.abs(drawn).max() < 8.6


def _with_uniforms(value: float) -> np.random.Generator:
    class Fixed(randomness._Normals):
        def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
            out[...] = value
            return out

    return Fixed(np.random.PCG64(0))
