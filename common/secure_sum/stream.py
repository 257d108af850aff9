"""A 32-byte seed to as many field elements as a share needs: AES-256 in counter mode."""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.canonical import digest_bytes
from common.errors import InternalError
from common.secure_sum.field import MODULUS, Elements

KEY_BYTES: Final = 32
_WORD: Final = np.dtype("<u8")
_LOW_BITS: Final = np.uint64(MODULUS)  # 2^61 - 1: the mask of 61 bits


def elements_of(seed: bytes, *, label: str, context: bytes, count: int) -> Elements:
    """Return `count` pseudo-random field elements, uniform to whoever does not know the seed.

    The key is HKDF-SHA256 of the seed, its info the digest of label and context: one seed in two
    contexts gives two unrelated streams, and so does one key in two uses. Of each 64-bit word 61
    bits are taken; a word of 61 ones, which no element is, is passed over.

    Args:
        seed: 32 bytes of the operating system's randomness.
        label: the one use, such as "share".
        context: public bytes that name the vector.
        count: number of elements.
    """
    if len(seed) != KEY_BYTES:
        raise InternalError(
            "a seed has another length",
            expected=f"{KEY_BYTES} bytes",
            arrived=f"{len(seed)} bytes",
            todo="report this as a fault",
        )
    info = digest_bytes(f"secure-sum/{label}", context).encode("ascii")
    key = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(seed)
    # One key makes one stream, so the counter may begin at zero.
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    found = np.empty(0, dtype=np.uint64)
    while len(found) < count:
        words = np.frombuffer(encryptor.update(bytes(8 * (count - len(found)))), dtype=_WORD)
        drawn = words.astype(np.uint64) & _LOW_BITS
        found = np.concatenate([found, drawn[drawn != _LOW_BITS]])
    return found
