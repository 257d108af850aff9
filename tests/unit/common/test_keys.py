"""Keys: one text form, one file form, and nothing secret in sight."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from common.crypto.keys import (
    HYBRID_SUITE,
    X25519_SUITE,
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyKey,
    X25519OpeningKey,
    X25519SealingKey,
    is_same_fingerprint,
    parse_sealing_key,
)
from common.errors import KeyFileError, SealError, SignatureError

# edwards25519 by its definition (RFC 8032 section 5.1), slow and independent of OpenSSL.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def _points_of_small_order() -> set[bytes]:
    """Return every encoding with sign bit 0 of a point whose order divides 8."""
    encodings = set()
    for y in _small_order_y():
        for value in (y, y + _P):
            if value < 2**255:
                encodings.add(value.to_bytes(32, "little"))
    return encodings


def _small_order_y() -> set[int]:
    # Order 1 and 2: x = 0, y = 1 or -1. Order 4: y = 0. Order 8: x^2 = y^2 up to the curve
    # -x^2 + y^2 = 1 + d x^2 y^2 and doubling to order 4, that is y(2P) = 0: y^2 + x^2 = 0.
    # So y^2 = -x^2, and 2 y^2 = 1 - d y^4: a quadratic in y^2.
    found = {0, 1, _P - 1}
    root = _square_root((1 + _D) % _P)
    assert root is not None
    for sign in (1, -1):
        y_squared = (-1 + sign * root) * pow(_D, -1, _P) % _P
        y = _square_root(y_squared)
        if y is not None:
            found |= {y, _P - y}
    return found


def _square_root(value: int) -> int | None:
    root = pow(value, (_P + 3) // 8, _P)
    if root * root % _P != value:
        root = root * pow(2, (_P - 1) // 4, _P) % _P
    return root if root * root % _P == value else None


def test_a_signing_key_survives_its_file(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.write(tmp_path / "signing.key")
    assert SigningKey.read(tmp_path / "signing.key").verify_key == key.verify_key


def test_an_opening_key_survives_its_file(tmp_path: Path) -> None:
    key = OpeningKey.generate()
    key.write(tmp_path / "opening.key")
    assert OpeningKey.read(tmp_path / "opening.key").sealing_key == key.sealing_key


def test_a_key_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    SigningKey.generate().write(tmp_path / "signing.key")
    assert stat.S_IMODE((tmp_path / "signing.key").stat().st_mode) == 0o600


def test_one_kind_of_key_is_not_read_as_the_other(tmp_path: Path) -> None:
    SigningKey.generate().write(tmp_path / "signing.key")
    OpeningKey.generate().write(tmp_path / "opening.key")
    with pytest.raises(KeyFileError):
        OpeningKey.read(tmp_path / "signing.key")
    with pytest.raises(KeyFileError):
        SigningKey.read(tmp_path / "opening.key")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"cohortium-signing-key-1", b"cohortium-signing-key-1 AAAA", b"x y z"],
)
def test_a_file_that_is_no_key_is_refused_without_showing_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        SigningKey.read(path)
    assert "AAAA" not in str(caught.value)


def test_the_repr_of_a_private_key_shows_only_its_fingerprint() -> None:
    signing, opening = SigningKey.generate(), OpeningKey.generate()
    assert repr(signing) == f"SigningKey({signing.fingerprint})"
    assert repr(opening) == f"OpeningKey({opening.fingerprint})"


def test_a_fingerprint_is_eight_groups_of_four_digits() -> None:
    for fingerprint in (SigningKey.generate().fingerprint, OpeningKey.generate().fingerprint):
        groups = fingerprint.split(" ")
        assert [len(group) for group in groups] == [4] * 8
        assert set("".join(groups)) <= set("0123456789abcdef")


def test_public_keys_survive_their_text() -> None:
    verify_key = SigningKey.generate().verify_key
    sealing_key = OpeningKey.generate().sealing_key
    assert VerifyKey.from_text(verify_key.to_text()) == verify_key
    assert SealingKey.from_text(sealing_key.to_text()) == sealing_key


@pytest.mark.parametrize("text", ["", "AAAA", "é" * 44, "A" * 44, " " + "A" * 43, "%%%%"])
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        VerifyKey.from_text(text)
    with pytest.raises(SealError):
        SealingKey.from_text(text)


def test_a_second_text_of_the_same_key_is_refused() -> None:
    text = SigningKey.generate().verify_key.to_text()
    last = text[-2]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = text[:-2] + alphabet[alphabet.index(last) ^ 1] + "="
    assert base64.b64decode(twin) == base64.b64decode(text)
    with pytest.raises(SignatureError):
        VerifyKey.from_text(twin)


def test_a_sealing_key_that_is_no_lattice_key_is_refused() -> None:
    with pytest.raises(SealError):
        SealingKey.from_text(base64.b64encode(b"\xff" * 1216).decode())


@pytest.mark.parametrize("point", [0, 1, _P - 1, _P, _P + 1])
def test_a_sealing_key_for_which_anybody_can_open_is_refused(point: int) -> None:
    # Orders 1, 2 and 4 on curve25519 by their u (RFC 7748, section 6.1: the secret is all zero).
    weak = point.to_bytes(32, "little")
    with pytest.raises(SealError):
        X25519SealingKey.from_text(base64.b64encode(weak).decode())
    hybrid = OpeningKey.generate().sealing_key.raw[:-32] + weak
    with pytest.raises(SealError):
        SealingKey.from_text(base64.b64encode(hybrid).decode())


def test_a_sealing_key_is_read_as_one_of_its_suite() -> None:
    hybrid, short = OpeningKey.generate().sealing_key, X25519OpeningKey.generate().sealing_key
    assert parse_sealing_key(HYBRID_SUITE, hybrid.to_text()) == hybrid
    assert parse_sealing_key(X25519_SUITE, short.to_text()) == short
    for suite, text in (
        (X25519_SUITE, hybrid.to_text()),
        (HYBRID_SUITE, short.to_text()),
        (3, short.to_text()),
    ):
        with pytest.raises(SealError):
            parse_sealing_key(suite, text)


def test_an_x25519_opening_key_survives_its_file_and_shows_no_secret(tmp_path: Path) -> None:
    key = X25519OpeningKey.generate()
    key.write(tmp_path / "opening.key")
    found = X25519OpeningKey.read(tmp_path / "opening.key")
    assert found.sealing_key == key.sealing_key
    assert repr(found) == f"X25519OpeningKey({key.fingerprint})"
    with pytest.raises(KeyFileError):
        OpeningKey.read(tmp_path / "opening.key")


def test_a_key_under_which_anybody_can_sign_is_refused() -> None:
    encodings = _points_of_small_order()
    assert len(encodings) == 7
    for encoding in encodings:
        for sign in (0, 0x80):
            raw = encoding[:31] + bytes([encoding[31] | sign])
            with pytest.raises(SignatureError):
                VerifyKey.from_text(base64.b64encode(raw).decode())


def test_a_fingerprint_is_compared_without_spaces_and_case_and_never_in_part() -> None:
    found = SigningKey.generate().fingerprint
    for told in (found, found.replace(" ", ""), f"  {found.upper()}\n", found.replace(" ", "\t")):
        assert is_same_fingerprint(found, told), told
    for told in ("", found[:-1], found[:4], SigningKey.generate().fingerprint):
        assert not is_same_fingerprint(found, told), told
