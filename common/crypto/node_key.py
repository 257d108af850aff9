"""The key with which a courier proves itself to Flower: EC P-384 in OpenSSH form."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from common.crypto.key_files import read_secret, write_secret
from common.errors import EnrolmentError, KeyFileError


def make_node_key(path: Path) -> str:
    """Write a new 0600 private key file and return the public half as OpenSSH text."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return node_public_text(key)


def node_public_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half as OpenSSH text."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the private key; raises `KeyFileError`."""
    try:
        key = load_ssh_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(
            "a node key file does not hold the key it should",
            expected=f"an EC private key in OpenSSH form in {path}",
            arrived="something else",
            todo="restore the key from its backup",
        )
    return key


def parse_node_public_key(text: str) -> bytes:
    """Return the canonical OpenSSH bytes of a public node key; raises `EnrolmentError`."""
    try:
        key = load_ssh_public_key(text.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EnrolmentError(
            "a node key is refused",
            expected="an EC P-384 public key in OpenSSH form",
            arrived="something else",
            todo="make the request again with `cohortium-site enroll`",
        )
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def node_public_pem(text: str) -> bytes:
    """Return a public node key as Flower names it, in PEM; raises `EnrolmentError`."""
    key = load_ssh_public_key(parse_node_public_key(text))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
