"""Signing and sealing keys as values: text form, fingerprint, and secret files.

Signatures are Ed25519 (RFC 8032). Seals are HPKE (RFC 9180) with the hybrid KEM of ML-KEM-768 and
X25519, so that what is recorded today does not open when X25519 falls; X25519 alone is for reports
to a receiver whose roster allows it. A private key's repr shows only its fingerprint, and its bytes
leave this module only into a 0600 file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Final, Self, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519

from common.crypto.key_files import read_secret, write_secret
from common.errors import KeyFileError, SealError, SignatureError

_SIGNING_TAG: Final = "cohortium-signing-key-1"
_OPENING_TAG: Final = "cohortium-opening-key-1"
_X25519_OPENING_TAG: Final = "cohortium-x25519-opening-key-1"
_ED25519_BYTES: Final = 32
_MLKEM768_PUBLIC_BYTES: Final = 1184
_MLKEM768_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32

# Points of order 1, 2, 4 and 8 on edwards25519 by their y (sign bit cleared), as in libsodium's
# ge25519_has_small_order: under such a key, signatures can be made without any private key.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)

X25519_SUITE: Final = 1
HYBRID_SUITE: Final = 2
HPKE_SUITES: Final = {
    X25519_SUITE: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    HYBRID_SUITE: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}


@lru_cache(maxsize=1024)  # each envelope names two keys
def fingerprint_of(use: str, public: bytes) -> str:
    """Return the first 128 bits of a SHA-256 as eight groups of four, to be read on a telephone."""
    text = hashlib.sha256(f"cohortium/fingerprint/{use}\0".encode() + public).hexdigest()[:32]
    return " ".join(text[i : i + 4] for i in range(0, 32, 4))


def is_same_fingerprint(found: str, told: str) -> bool:
    """Return whether a key's fingerprint is the one that a person typed: spaces and case aside."""
    return "".join(found.split()).lower() == "".join(told.split()).lower()


@dataclass(frozen=True)
class VerifyKey:
    """The public half of a signing key (Ed25519, 32 bytes)."""

    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the text form; raises `SignatureError` for anything but a usable 32-byte key."""
        raw = _decode(text)
        if raw is None or len(raw) != _ED25519_BYTES or _is_small_order(raw):
            raise SignatureError(
                "not a public signing key",
                expected="an Ed25519 key that only its holder can sign for: 32 bytes in base64",
                arrived="something else",
                todo="ask for the enrolment file or request again",
            )
        return cls(raw)

    def to_text(self) -> str:
        """Return the base64 text form."""
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """Eight groups of four hexadecimal digits."""
        return fingerprint_of("signing", self.raw)

    def is_signature(self, message: bytes, signature: bytes) -> bool:
        """Return whether these raw bytes carry this key's signature."""
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, repr=False)
class SigningKey:
    """An Ed25519 private key."""

    _key: ed25519.Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a key file; raises `KeyFileError`."""
        raw = _read_tagged(path, _SIGNING_TAG, _ED25519_BYTES)
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(raw))

    def write(self, path: Path) -> None:
        """Write a new 0600 key file; raises `KeyFileError`."""
        _write_tagged(path, _SIGNING_TAG, self._key.private_bytes_raw())

    @cached_property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """The public half's fingerprint."""
        return self.verify_key.fingerprint

    def sign_raw(self, message: bytes) -> bytes:
        """Return the 64-byte signature of raw bytes; use `common.crypto.signing` instead."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"


@dataclass(frozen=True)
class SealingKey:
    """The public half of an opening key: ML-KEM-768 (1184 bytes) then X25519 (32 bytes)."""

    suite: ClassVar[int] = HYBRID_SUITE
    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the text form; raises `SealError` for anything but a key of this suite."""
        raw = _decode(text)
        if raw is None or len(raw) != _MLKEM768_PUBLIC_BYTES + _X25519_BYTES:
            raise SealError(
                "not a public sealing key",
                expected=f"{_MLKEM768_PUBLIC_BYTES + _X25519_BYTES} bytes in base64",
                arrived="something else",
                todo="ask for the enrolment file or request again",
            )
        if not _is_hybrid_key(raw):
            raise SealError(
                "not a public sealing key",
                expected="an ML-KEM-768 key and an X25519 key that only its holder can open for",
                arrived="bytes that are no such keys",
                todo="ask for the enrolment file or request again",
            )
        return cls(raw)

    def to_text(self) -> str:
        """Return the base64 text form."""
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """Eight groups of four hexadecimal digits."""
        return fingerprint_of("sealing", self.raw)

    def hpke_key(self) -> hpke.MLKEM768X25519PublicKey:
        """Return the key in the form that HPKE takes."""
        return _hybrid_key(self.raw)


@dataclass(frozen=True, repr=False)
class OpeningKey:
    """An HPKE private key: the ML-KEM-768 seed and the X25519 key."""

    suite: ClassVar[int] = HYBRID_SUITE
    _mlkem: mlkem.MLKEM768PrivateKey
    _x25519: x25519.X25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Make a new key pair from the operating system's randomness."""
        return cls(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a key file; raises `KeyFileError`."""
        raw = _read_tagged(path, _OPENING_TAG, _MLKEM768_SEED_BYTES + _X25519_BYTES)
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM768_SEED_BYTES]),
            x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM768_SEED_BYTES:]),
        )

    def write(self, path: Path) -> None:
        """Write a new 0600 key file; raises `KeyFileError`."""
        raw = self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()
        _write_tagged(path, _OPENING_TAG, raw)

    @cached_property
    def sealing_key(self) -> SealingKey:
        """The public half."""
        return SealingKey(
            self._mlkem.public_key().public_bytes_raw()
            + self._x25519.public_key().public_bytes_raw()
        )

    @property
    def fingerprint(self) -> str:
        """The public half's fingerprint."""
        return self.sealing_key.fingerprint

    def hpke_key(self) -> hpke.MLKEM768X25519PrivateKey:
        """Return the key in the form that HPKE takes."""
        return hpke.MLKEM768X25519PrivateKey(self._mlkem, self._x25519)

    def __repr__(self) -> str:
        return f"OpeningKey({self.fingerprint})"


@dataclass(frozen=True)
class X25519SealingKey:
    """The public half of an X25519 opening key (32 bytes)."""

    suite: ClassVar[int] = X25519_SUITE
    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the text form; raises `SealError` for anything but a usable X25519 key."""
        raw = _decode(text)
        if raw is None or len(raw) != _X25519_BYTES or not _agrees_on_a_secret(raw):
            raise SealError(
                "not a public sealing key",
                expected=f"an X25519 key that only its holder can open for: {_X25519_BYTES} bytes "
                "in base64",
                arrived="something else",
                todo="ask the key's holder for it again",
            )
        return cls(raw)

    def to_text(self) -> str:
        """Return the base64 text form."""
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """Eight groups of four hexadecimal digits."""
        return fingerprint_of("sealing", self.raw)

    def hpke_key(self) -> x25519.X25519PublicKey:
        """Return the key in the form that HPKE takes."""
        return x25519.X25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True, repr=False)
class X25519OpeningKey:
    """An HPKE private key of X25519 alone."""

    suite: ClassVar[int] = X25519_SUITE
    _x25519: x25519.X25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Make a new key pair from the operating system's randomness."""
        return cls(x25519.X25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a key file; raises `KeyFileError`."""
        raw = _read_tagged(path, _X25519_OPENING_TAG, _X25519_BYTES)
        return cls(x25519.X25519PrivateKey.from_private_bytes(raw))

    def write(self, path: Path) -> None:
        """Write a new 0600 key file; raises `KeyFileError`."""
        _write_tagged(path, _X25519_OPENING_TAG, self._x25519.private_bytes_raw())

    @property
    def sealing_key(self) -> X25519SealingKey:
        """The public half."""
        return X25519SealingKey(self._x25519.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """The public half's fingerprint."""
        return self.sealing_key.fingerprint

    def hpke_key(self) -> x25519.X25519PrivateKey:
        """Return the key in the form that HPKE takes."""
        return self._x25519

    def __repr__(self) -> str:
        return f"X25519OpeningKey({self.fingerprint})"


AnySealingKey: TypeAlias = SealingKey | X25519SealingKey
AnyOpeningKey: TypeAlias = OpeningKey | X25519OpeningKey


def parse_sealing_key(suite: int, text: str) -> AnySealingKey:
    """Return the sealing key of a suite from its text form; raises `SealError`."""
    if suite == HYBRID_SUITE:
        return SealingKey.from_text(text)
    if suite == X25519_SUITE:
        return X25519SealingKey.from_text(text)
    raise SealError(
        "a sealing key of an unknown suite is refused",
        expected=f"suite {X25519_SUITE} or {HYBRID_SUITE}",
        arrived=f"suite {suite}",
        todo="use the same software version on both sides",
    )


def _decode(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError):
        return None
    # Base64 leaves bits unused at its end: one key has one text.
    return raw if base64.b64encode(raw).decode() == text else None


@lru_cache(maxsize=256)  # a site and its coordinator seal to each other in every round
def _hybrid_key(raw: bytes) -> hpke.MLKEM768X25519PublicKey:
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM768_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM768_PUBLIC_BYTES:]),
    )


@lru_cache(maxsize=1024)  # the coordinator reads its sites' keys with each answer
def _is_hybrid_key(raw: bytes) -> bool:
    try:
        _hybrid_key(raw)
    except ValueError:
        return False
    return _agrees_on_a_secret(raw[_MLKEM768_PUBLIC_BYTES:])


def _is_small_order(raw: bytes) -> bool:
    return raw[:31] + bytes([raw[31] & 0x7F]) in _SMALL_ORDER


def _agrees_on_a_secret(raw: bytes) -> bool:
    # With a point of small order anybody knows the shared secret; the exchange then refuses.
    try:
        x25519.X25519PrivateKey.generate().exchange(x25519.X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return False
    return True


def _write_tagged(path: Path, tag: str, raw: bytes) -> None:
    write_secret(path, f"{tag} {base64.b64encode(raw).decode()}\n".encode())


def _read_tagged(path: Path, tag: str, length_bytes: int) -> bytes:
    words = read_secret(path).decode("ascii", errors="replace").split()
    raw = _decode(words[1]) if len(words) == 2 and words[0] == tag else None
    if raw is None or len(raw) != length_bytes:
        raise KeyFileError(
            "a key file does not hold the key it should",
            expected=f"one line '{tag} <base64 of {length_bytes} bytes>' in {path}",
            arrived="something else",
            todo="restore the key from its backup",
        )
    return raw
