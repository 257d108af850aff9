"""The stream that DP noise and sampling read is AES in counter mode, as OpenSSL computes it."""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from site_client.training import randomness


def test_the_stream_is_aes_128_in_counter_mode_under_the_whole_key() -> None:
    for key in (bytes(16), b"\xff" * 16, os.urandom(16)):
        ours = randomness._generator(key).bit_generator.random_raw(4096)
        blocks = b"".join(number.to_bytes(16, "little") for number in range(2048))
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        theirs = np.frombuffer(encryptor.update(blocks), dtype="<u8")
        assert np.array_equal(ours, theirs)


def test_normals_from_the_stream_have_the_tails_of_a_normal() -> None:
    draws = randomness.Randomness.from_system().noise.standard_normal(4_000_000)
    for bound, expected in ((3.0, 2.6998e-3), (4.0, 6.3342e-5)):
        found = float((np.abs(draws) > bound).mean())
        assert abs(found - expected) < 6 * np.sqrt(expected / draws.size)
    assert abs(float((draws**4).mean()) - 3.0) < 6 * np.sqrt(96 / draws.size)
