"""Seals open for one key, one label and one context only."""

from __future__ import annotations

import pytest

from common.crypto import sealing
from common.crypto.keys import OpeningKey, X25519OpeningKey
from common.crypto.sealing import open_sealed, seal
from common.errors import SealError


@pytest.fixture(scope="module")
def key() -> OpeningKey:
    return OpeningKey.generate()


@pytest.mark.parametrize("plaintext", [b"", b"x", b"y" * 100_000])
def test_sealed_bytes_open(key: OpeningKey, plaintext: bytes) -> None:
    sealed = seal(plaintext, to=key.sealing_key, label="l", context=b"c")
    assert len(sealed) == len(plaintext) + 1120 + 16
    assert open_sealed(sealed, key=key, label="l", context=b"c") == plaintext


def test_bytes_sealed_to_x25519_alone_open_and_only_there(key: OpeningKey) -> None:
    short = X25519OpeningKey.generate()
    sealed = seal(b"xyz", to=short.sealing_key, label="l", context=b"c")
    assert len(sealed) == 3 + 32 + 16
    assert open_sealed(sealed, key=short, label="l", context=b"c") == b"xyz"
    for other, data in ((key, sealed), (short, bytes(32) + sealed[32:]), (short, sealed[:40])):
        with pytest.raises(SealError):
            open_sealed(data, key=other, label="l", context=b"c")


def test_the_same_bytes_are_never_sealed_the_same_way_twice(key: OpeningKey) -> None:
    first, second = (seal(b"x", to=key.sealing_key, label="l", context=b"") for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("label", "context"), [("m", b"c"), ("l", b"d"), ("l", b"")])
def test_another_label_or_context_does_not_open(
    key: OpeningKey, label: str, context: bytes
) -> None:
    sealed = seal(b"x", to=key.sealing_key, label="l", context=b"c")
    with pytest.raises(SealError):
        open_sealed(sealed, key=key, label=label, context=context)


def test_another_key_does_not_open(key: OpeningKey) -> None:
    sealed = seal(b"x", to=key.sealing_key, label="l", context=b"c")
    with pytest.raises(SealError):
        open_sealed(sealed, key=OpeningKey.generate(), label="l", context=b"c")


@pytest.mark.parametrize("length", [0, 1, 1119, 1120, 1135])
def test_bytes_cut_short_do_not_open(key: OpeningKey, length: int) -> None:
    sealed = seal(b"", to=key.sealing_key, label="l", context=b"c")
    with pytest.raises(SealError):
        open_sealed(sealed[:length], key=key, label="l", context=b"c")


def test_a_low_order_point_in_the_encapsulation_does_not_open(key: OpeningKey) -> None:
    sealed = seal(b"x", to=key.sealing_key, label="l", context=b"c")
    for start in (0, 1088):  # X25519's share is 32 bytes at one end of the encapsulation
        changed = sealed[:start] + bytes(32) + sealed[start + 32 :]
        with pytest.raises(SealError):
            open_sealed(changed, key=key, label="l", context=b"c")


def test_a_library_that_says_value_error_is_heard_as_a_seal_error(
    key: OpeningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the X25519 suite does for a low-order point.
    class Suite:
        def decrypt(self, *_: object, **__: object) -> bytes:
            raise ValueError("low order")

    monkeypatch.setattr(sealing, "HPKE_SUITES", {key.suite: Suite()})
    with pytest.raises(SealError):
        open_sealed(b"x" * 2000, key=key, label="l", context=b"")
