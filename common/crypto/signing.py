"""Sign and verify framed bytes under a label that names their one use."""

from __future__ import annotations

from common.canonical import digest_bytes
from common.crypto.keys import SigningKey, VerifyKey
from common.errors import SignatureError


def sign(key: SigningKey, label: str, *parts: bytes) -> bytes:
    """Return the signature over the labelled digest of `parts` (64 bytes)."""
    return key.sign_raw(_message(label, parts))


def verify(key: VerifyKey, label: str, signature: bytes, *parts: bytes) -> None:
    """Check a signature over the labelled digest of `parts`; raises `SignatureError`."""
    if not key.is_signature(_message(label, parts), signature):
        raise SignatureError(
            f"a signature for {label} does not verify",
            expected=f"a signature by key {key.fingerprint}",
            arrived="bytes signed by another key, or changed after signing",
            todo="do not use the content; ask its sender to send it again",
        )


def _message(label: str, parts: tuple[bytes, ...]) -> bytes:
    return digest_bytes(f"sign/{label}", *parts).encode("ascii")
