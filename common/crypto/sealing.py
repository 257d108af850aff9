"""Seal bytes to a role's public key, bound to a label for that one use (RFC 9180, base mode)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from common.canonical import digest_bytes
from common.crypto.keys import HPKE_SUITES, AnyOpeningKey, AnySealingKey
from common.errors import SealError


def seal(plaintext: bytes, *, to: AnySealingKey, label: str, context: bytes) -> bytes:
    """Return `plaintext` sealed to one key: encapsulation, ciphertext, tag (16 bytes).

    The encapsulation has 1120 bytes for a hybrid key, 32 for one of X25519 alone.

    Args:
        plaintext: what only the holder of the opening key shall read.
        to: the receiver's public key.
        label: the one use, such as "envelope/request".
        context: bytes that must be the same when it is opened; they are not secret.
    """
    info = digest_bytes(f"seal/{label}", context).encode("ascii")
    return HPKE_SUITES[to.suite].encrypt(plaintext, to.hpke_key(), info=info)


def open_sealed(sealed: bytes, *, key: AnyOpeningKey, label: str, context: bytes) -> bytes:
    """Return the plaintext; raises `SealError` for another key, label, context or changed bytes."""
    info = digest_bytes(f"seal/{label}", context).encode("ascii")
    try:
        return HPKE_SUITES[key.suite].decrypt(sealed, key.hpke_key(), info=info)
    except (InvalidTag, ValueError):
        raise SealError(
            f"sealed bytes for {label} do not open",
            expected=f"bytes sealed to key {key.fingerprint} in this context",
            arrived="bytes sealed to another key, in another context, or changed",
            todo="do not use them; ask their sender to send them again",
        ) from None
