"""Signatures hold for one key, one label and these parts only."""

from __future__ import annotations

import pytest

from common.crypto.keys import SigningKey
from common.crypto.signing import sign, verify
from common.errors import SignatureError


def test_a_signature_verifies_over_the_same_label_and_parts() -> None:
    key = SigningKey.generate()
    verify(key.verify_key, "label", sign(key, "label", b"a", b"b"), b"a", b"b")


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("other", (b"a", b"b")),
        ("label", (b"ab", b"")),
        ("label", (b"ab",)),
        ("label", (b"b", b"a")),
        ("label", (b"a", b"b", b"")),
        ("label", ()),
    ],
)
def test_another_label_or_another_framing_does_not_verify(
    label: str, parts: tuple[bytes, ...]
) -> None:
    key = SigningKey.generate()
    signature = sign(key, "label", b"a", b"b")
    with pytest.raises(SignatureError):
        verify(key.verify_key, label, signature, *parts)


def test_another_key_does_not_verify() -> None:
    signature = sign(SigningKey.generate(), "label", b"a")
    with pytest.raises(SignatureError):
        verify(SigningKey.generate().verify_key, "label", signature, b"a")


@pytest.mark.parametrize("signature", [b"", b"x", b"\0" * 63, b"\0" * 64, b"\xff" * 65])
def test_bytes_that_are_no_signature_do_not_verify(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(SigningKey.generate().verify_key, "label", signature, b"a")
