"""A ciphertext that AES-GCM opens under two keys: GCM does not commit to its key.

After Grubbs, Lu and Ristenpart (CRYPTO 2017) and Dodis et al. (CRYPTO 2018): the tag is linear in
each ciphertext block, so one block can be chosen so that the tags of both keys agree. Fields and
tags as in NIST SP 800-38D.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16


def same_ciphertext_for_two_keys(
    plaintext: bytes, first: bytes, second: bytes, *, aad: bytes
) -> bytes:
    """Return ciphertext and tag, nonce zero, that both keys open; the first to all but one block.

    Args:
        plaintext: whole blocks.
        first, second: 32-byte keys.
        aad: the associated data of both.
    """
    counter = (bytes(12) + (2).to_bytes(4, "big"),)
    stream = Cipher(algorithms.AES(first), modes.CTR(counter[0])).encryptor()
    blocks = _blocks(stream.update(plaintext))
    lengths = (len(aad) * 8).to_bytes(8, "big") + (len(plaintext) * 8).to_bytes(8, "big")
    masks, ends, powers = [], [], []
    for key in (first, second):
        encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        hash_key = int.from_bytes(encrypt.update(bytes(BLOCK)), "big")
        masks.append(int.from_bytes(encrypt.update(bytes(12) + (1).to_bytes(4, "big")), "big"))
        without_last = [*_blocks(aad), *blocks[:-1], 0, int.from_bytes(lengths, "big")]
        ends.append(_ghash(hash_key, without_last))
        powers.append(_multiply(hash_key, hash_key))  # of the last block before the lengths
    difference = ends[0] ^ ends[1] ^ masks[0] ^ masks[1]
    last = _multiply(difference, _inverse(powers[0] ^ powers[1]))
    tag = ends[0] ^ masks[0] ^ _multiply(last, powers[0])
    return b"".join(block.to_bytes(BLOCK, "big") for block in (*blocks[:-1], last, tag))


def _blocks(data: bytes) -> list[int]:
    padded = data + bytes(-len(data) % BLOCK)
    return [int.from_bytes(padded[i : i + BLOCK], "big") for i in range(0, len(padded), BLOCK)]


def _ghash(hash_key: int, blocks: list[int]) -> int:
    value = 0
    for block in blocks:
        value = _multiply(value ^ block, hash_key)
    return value


def _multiply(left: int, right: int) -> int:
    """SP 800-38D, algorithm 1: the leftmost bit is the lowest power."""
    product = 0
    for place in range(127, -1, -1):
        if left >> place & 1:
            product ^= right
        right = right >> 1 ^ (0xE1 << 120 if right & 1 else 0)
    return product


def _inverse(value: int) -> int:
    """By Fermat: value to the power of 2^128 - 2."""
    result = 1 << 127  # one
    for _ in range(127):
        value = _multiply(value, value)
        result = _multiply(result, value)
    return result
